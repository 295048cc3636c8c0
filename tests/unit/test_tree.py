"""What CONTRIBUTING says of sizes: a file is read in one sitting, a function of the data path on one screen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import stream_gru

PACKAGE = Path(stream_gru.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
OPTIONS = "cli"  # commands are long: an option is a parameter


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_and_no_function_grows_too_long(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    if OPTIONS not in path.parts:
        functions = (
            node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        )
        sizes = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
        assert {name: size for name, size in sizes.items() if size > 60} == {}
