"""The hooks for commits are valid, and run what `make check` runs."""

from __future__ import annotations

import subprocess
import sys

import yaml

from tests.support import texts

CONFIG = texts.ROOT / ".pre-commit-config.yaml"


def test_pre_commit_takes_the_file() -> None:
    call = [sys.executable, "-m", "pre_commit", "validate-config", str(CONFIG)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_the_hooks_run_the_tools_of_the_environment() -> None:
    """A repository of hooks would bring versions of its own, which disagree with those of the checks."""
    (repository,) = yaml.safe_load(CONFIG.read_text("utf-8"))["repos"]
    assert repository["repo"] == "local"
    run = {hook["entry"].split()[0] for hook in repository["hooks"] if hook["language"] == "system"}
    makefile = texts.text(texts.ROOT / "Makefile")
    assert all(f"$(BIN)/{entry.removeprefix('.venv/bin/')}" in makefile for entry in run)
