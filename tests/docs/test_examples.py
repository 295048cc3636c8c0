"""The examples run: the notebook, and producer and consumer around a worker on a real broker."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from stream_gru.settings import Settings
from tests.support import texts
from tests.support.workers import crew

EXAMPLES = texts.ROOT / "examples"


def run_cell(source: str, space: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "notebook", "exec"), space)  # noqa: S102 - our own example, run as a reader would
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "notebook", "eval"), space)  # noqa: S307 - the same
    return None


@pytest.mark.slow
def test_the_notebook_runs_and_finds_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "backend", "Agg")
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert all(cell["id"] and not cell.get("outputs") for cell in notebook["cells"])
    space: dict[str, Any] = {}
    shown = {
        cell["id"]: run_cell("".join(cell["source"]), space)
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    }
    assert shown["alert"]["series"].to_list() == ["pump-2"]


def example(name: str, *arguments: object) -> str:
    """What an example prints."""
    call = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_producer_sends_the_consumer_prints(settings: Settings, tmp_path: Path) -> None:
    broker = ("--bootstrap-servers", settings.kafka.bootstrap_servers)
    topics = settings.topics
    said = example("producer.py", *broker, "--topic", topics.readings[0], "--series", "pump-3", "--count", 400)
    assert said == f"400 readings of pump-3 sent to {topics.readings[0]}\n"
    with crew(settings, tmp_path, "a", role="all"):
        first = example(
            "consumer.py", *broker, "--topic", topics.anomalies, "--group", f"{topics.anomalies}-1", "--count", 1
        )
        told = example("consumer.py", *broker, "--topic", topics.alerts, "--group", f"{topics.alerts}-1", "--count", 1)
    assert " pump-3 anomaly: " in first
    assert " pump-3 firing, score " in told
