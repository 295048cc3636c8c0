"""README is short, its example runs and shows what it says, and its figures are those of the benchmarks page."""

from __future__ import annotations

import re

import pytest

from tests.support import texts

README = texts.ROOT / "README.md"
MOST_WORDS = 900


def test_it_is_short() -> None:
    assert len(texts.text(README).split()) <= MOST_WORDS


@pytest.mark.slow
def test_the_example_finds_its_anomaly(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = texts.blocks(README, "python")
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own README, run as a reader would
    assert re.search(r"^. 90000000 +┆", capsys.readouterr().out, re.MULTILINE)


def test_its_figures_are_those_of_the_benchmarks() -> None:
    figures = texts.text(README).partition("## Figures")[2].partition("\n## ")[0]
    rows = [line for line in figures.splitlines() if line.startswith("| ")]
    assert len(rows) > 3
    assert set(rows) <= set(texts.table_rows(texts.DOCS / "benchmarks.md"))
