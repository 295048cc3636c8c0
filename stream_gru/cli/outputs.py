"""Whether results can be written where they were asked for: looked at before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from stream_gru.errors import OutputError


def folder(path: Path, option: str = "--out") -> None:
    """Raise `OutputError` unless `path` is a folder to write to, or can be made one."""
    there = Path(os.path.abspath(path))
    while not os.path.lexists(there):
        there = there.parent
    if not os.path.isdir(there):
        raise OutputError(f"{option}: {path} can't be written to: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{option}: {path} can't be written to: no right to write in {there}")


def file(path: Path, option: str = "--out") -> None:
    """Raise `OutputError` unless `path` is a file to write, or can be made one."""
    if os.path.isdir(path):
        raise OutputError(f"{option}: {path} is a folder; give the name of a file")
    if not os.path.exists(path):
        folder(path.parent, option)
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise OutputError(f"{option}: {path} can't be written to: no right to change it")
