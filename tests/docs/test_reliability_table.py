"""docs/reliability.md names a test for every row, and every test of a row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = 25


def table() -> dict[int, list[str]]:
    """Number of a row -> the tests that it names."""
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    rows = {}
    for line in text.splitlines():
        if found := re.match(r"\| (\d+) \|.*\| ([^|]*) \|$", line):
            rows[int(found[1])] = re.findall(r"`(test_\w+)`", found[2])
    return rows


def existing() -> set[str]:
    """Names of all tests."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text("utf-8"))}


def test_every_row_has_a_test_that_exists() -> None:
    rows, there = table(), existing()
    assert list(rows) == list(range(1, ROWS + 1))
    assert {name for names in rows.values() for name in names} <= there
    assert all(rows.values())


def test_every_test_of_a_row_is_named_there() -> None:
    rows = table()
    numbered = {name: int(found[1]) for name in existing() if (found := re.match(r"test_row_(\d\d)_", name))}
    assert {name: number for name, number in numbered.items() if name not in rows.get(number, [])} == {}
