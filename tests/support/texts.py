"""The texts for users, and what stands in them."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in ("docs", "deploy", "tests") for page in (ROOT / name).rglob("*.md"))]
)
PAGES.remove(ROOT / "CHANGELOG.md")  # says what was so when it was written
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text(page: Path) -> str:
    return page.read_text("utf-8")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as the site and GitHub make them."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of this language."""
    return [body for kind, body in _FENCED.findall(text(page)) if kind == language]


def calls(page: Path, program: str) -> Iterator[list[str]]:
    """What follows `program` in the commands of a page, in blocks and in lines."""
    whole = text(page).replace("\\\n", " ")
    for line in re.findall(rf"(?:^(?:\$ |    )|`){re.escape(program)} ([^`\n]*)", whole, re.MULTILINE):
        yield shlex.split(line.partition(" # ")[0])


def paths() -> list[str]:
    """Files and folders of the repository, from its top level on; folders end with a slash."""
    tops = [ROOT / name for name in ("stream_gru", "tests", "docs", "deploy", "examples")]
    inside = [path for top in tops for path in (top, *top.rglob("*"))]
    return [f"/{name(path)}{'/' * path.is_dir()}" for path in (*inside, *ROOT.iterdir())]


def table_rows(page: Path) -> list[str]:
    return [line for line in text(page).splitlines() if line.startswith("| ")]


def reference() -> ModuleType:
    """docs/reference.py, which MkDocs loads by its path."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
