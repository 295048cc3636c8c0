"""Whether results can be written where they were asked for: looked at before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from stream_gru.errors import OutputError


def folder(path: Path, option: str = "--out") -> None:
    """Raise `OutputError` unless `path` is a folder to write to, or can be made one."""
    _can_hold(Path(os.path.abspath(path)), path, option)


def file(path: Path, option: str = "--out") -> None:
    """Raise `OutputError` unless `path` is a file to write, or can be made one."""
    if os.path.isdir(path):
        raise OutputError(f"{option}: {path} is a folder; give the name of a file")
    if not os.path.lexists(path):
        _can_hold(Path(os.path.abspath(path)).parent, path, option)
    elif not os.access(path, os.W_OK):
        raise OutputError(f"{option}: {path} can't be written to: no right to change it")


def _can_hold(there: Path, path: Path, option: str) -> None:
    """`path` can be made in `there`, or in what there is of it."""
    while not os.path.lexists(there):
        there = there.parent
    if not os.path.isdir(there):
        raise OutputError(f"{option}: {path} can't be written to: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{option}: {path} can't be written to: no right to write in {there}")
