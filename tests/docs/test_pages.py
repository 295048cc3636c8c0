"""What the pages say of commands, settings, files and records is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from stream_gru import settings
from stream_gru.cli import app
from stream_gru.codecs import names as codecs
from stream_gru.columns import Level
from stream_gru.models.blocks.zoneout import Zoneout
from stream_gru.models.bundle import build
from stream_gru.models.network import VARIANTS
from stream_gru.records.dead_letters import DeadLetter, Reason
from stream_gru.settings import Settings
from stream_gru.stores import schemes
from stream_gru.training import recipe
from stream_gru.training.data import describe
from tests.support import texts

each_page = pytest.mark.parametrize("page", texts.PAGES, ids=texts.name)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MADE_UP = {"mgu", "msgpack"}  # the pieces that the how-to pages make
_USERS_OWN = {"stream-gru.toml", "recipe.toml", "NAB/labels/combined_windows.json"}
PATHS = texts.paths()
COMMAND: Any = typer.main.get_command(app)


@each_page
def test_links_to_files_lead_somewhere(page: Path) -> None:
    files = [link.partition("#")[0] for link in _LINK.findall(texts.text(page)) if "://" not in link]
    assert [file for file in files if file and not (page.parent / file).exists()] == []


@each_page
def test_links_to_headings_lead_somewhere(page: Path) -> None:
    """Where the target is a file of the repository: the build of the site sees only docs/."""
    for file, _, anchor in (link.partition("#") for link in _LINK.findall(texts.text(page)) if "://" not in link):
        if anchor:
            assert anchor in texts.anchors(page.parent / file if file else page), f"{file}#{anchor}"


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    """Each is the end of a path in the repository."""
    named = re.findall(r"`([\w./-]+\.(?:py|md|toml|yml|json|ipynb|lua)|[a-z_]+(?:/[a-z_]+)*/)`", texts.text(page))
    missing = {file for file in named if not any(path.endswith(f"/{file}") for path in PATHS)}
    assert {file for file in missing - _USERS_OWN if Path(file).stem not in _MADE_UP} == set()


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for call in texts.calls(page, "stream-gru"):
        command = COMMAND
        words = iter(call)
        while hasattr(command, "commands") and (word := next(words, None)) is not None:
            if word.startswith("-") or not word.islower():
                break  # of stream-gru itself, or SUITE, which stands for any
            assert word in command.commands, call
            command = command.commands[word]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help", "--version"}, call


@each_page
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", texts.text(texts.ROOT / "Makefile"), re.MULTILINE))
    assert {call[0] for call in texts.calls(page, "make") if call} <= targets


@each_page
def test_settings_that_are_named_exist(page: Path) -> None:
    known = set(settings.environment(Settings()))
    sections = {variable.partition("__")[0] for variable in known}
    named = {f"STREAM_GRU_{name}" for name in re.findall(r"STREAM_GRU_([A-Z]+__[A-Z_]+)", texts.text(page))}
    for section, leaf in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]*)?`", texts.text(page)):
        if f"STREAM_GRU_{section.upper()}" in sections and leaf != "py":
            named.add(f"STREAM_GRU_{section}__{leaf}".upper())
    assert named <= known


@each_page
def test_settings_in_toml_are_valid(page: Path, tmp_path: Path) -> None:
    for block in texts.blocks(page, "toml"):
        if "[plan]" not in block:
            (tmp_path / "stream-gru.toml").write_text(block, "utf-8")
            settings.load(tmp_path / "stream-gru.toml")


def test_the_recipe_is_one(tmp_path: Path) -> None:
    (text,) = (block for block in texts.blocks(texts.DOCS / "training.md", "toml") if "[plan]" in block)
    (tmp_path / "recipe.toml").write_text(text, "utf-8")
    made = recipe.load(tmp_path / "recipe.toml")
    assert (made.network.attention, made.context.holidays, made.data.tokens, made.plan.patience) == (32, "DE", 32768, 5)
    build(describe(made, "readme", None))


def test_the_output_page_has_every_level_and_all_of_a_dead_letter() -> None:
    said = set(re.findall(r"`(\w+)`", "\n".join(texts.table_rows(texts.DOCS / "output.md"))))
    assert set(DeadLetter.__struct_fields__) <= said
    assert {reason.value for reason in Reason} <= said
    assert {level.name.lower() for level in Level if level is not Level.COVERED} <= said


def test_the_models_page_has_every_technique() -> None:
    rows = "\n".join(texts.table_rows(texts.DOCS / "models.md"))
    assert set(VARIANTS) <= set(re.findall(r"`([\w-]+)`", rows))


def test_the_made_up_pieces_are_not_there() -> None:
    """Else the how-to pages would tell people to write what exists."""
    assert not _MADE_UP & {*codecs(), *schemes()}


@torch.no_grad()
def test_the_cell_of_the_how_to_is_one() -> None:
    (code,) = texts.blocks(texts.DOCS / "extending" / "cell.md", "python")
    space: dict[str, Any] = {}
    exec(compile(code, "cell.md", "exec"), space)  # noqa: S102 - our own page, run as a reader would
    cell = space["CELL"](5, 8)
    x, state = torch.randn(20, 6, 5), torch.randn(6, cell.state_size)
    outputs, last = cell.unroll(x, state)
    for now, output in zip(x, outputs, strict=True):
        stepped, state = cell.step(now, state)
        torch.testing.assert_close(stepped, output)
    torch.testing.assert_close(state, last)
    assert torch.equal(Zoneout(cell, 1.0).step(x[0], state)[1], state)
