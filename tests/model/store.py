"""A store as the rules want it, or with one of them broken."""

from __future__ import annotations

import pickle
from typing import NamedTuple

from stream_gru.errors import FencedError
from stream_gru.stores import Assigned, Identity, Write


class ViolationError(AssertionError):
    """A guarantee does not hold."""


class Row(NamedTuple):
    """The toy state of one series."""

    offset: int
    history: tuple[int, ...]
    model: str

    def encode(self) -> bytes:
        return pickle.dumps(tuple(self))


class Kept(NamedTuple):
    """What the store holds; immutable, so that going back in time is an assignment."""

    owner: str
    identity: Identity
    seq: int = 0
    offset: int | None = None
    marks: tuple[tuple[str, str], ...] = ()
    rows: tuple[tuple[bytes, bytes], ...] = ()
    reading: str = ""  # rule R21: set while an owner reads, until it hands over


class Assignment(NamedTuple):
    """A call of `Store.assign` on its way."""

    owner: str
    identity: Identity


def decode(row: bytes) -> Row:
    return Row(*pickle.loads(row))  # noqa: S301 - our own bytes


def held(kept: Kept | None) -> Assigned:
    """What an assignment returns."""
    if kept is None:
        return Assigned(None, None)
    return Assigned(kept.offset, kept.identity, len(kept.rows), dict(kept.marks), kept.reading)


def assign(kept: Kept | None, call: Assignment) -> Kept:
    """Rule R1."""
    return (kept or Kept("", call.identity))._replace(owner=call.owner, seq=0)


def write(kept: Kept | None, call: Write, broken: str) -> Kept | None:
    """Rule R2; None: fenced. Raises `ViolationError` of guarantee 3."""
    if kept is None and broken == "R2 missing":
        kept = Kept(call.owner, Identity("T", 1, 1, "m", "1"), call.n - 1)
    if kept is None or (call.owner != kept.owner and broken != "R2 owner"):
        return None
    if kept.seq >= call.n and broken != "R2 repeat":
        return kept
    if kept.seq != call.n - 1 and broken not in ("R2 turn", "R2 repeat", "R2 owner"):
        return None
    rows = {} if call.identity and broken != "R18 rows" else dict(kept.rows)
    for series, row in zip(call.series, call.rows, strict=True):
        if series in rows and decode(row).offset < decode(rows[series]).offset:
            raise ViolationError(f"guarantee 3: an older row of series {series!r} was written over a newer one")
        rows[series] = row
    if call.offset is not None and kept.offset is not None and call.offset < kept.offset:
        raise ViolationError(f"guarantee 3: the stored offset fell from {kept.offset} to {call.offset}")
    kept = kept._replace(seq=call.n, rows=tuple(sorted(rows.items())), identity=call.identity or kept.identity)
    if call.offset is not None:
        kept = kept._replace(offset=call.offset, marks=tuple(call.marks.items()))
    return kept


class Word(NamedTuple):
    """A call of `Store.mark` on its way."""

    owner: str
    reading: str


def mark(kept: Kept | None, call: Word, broken: str) -> Kept | None:
    """Rule R21. None: fenced."""
    if kept is None or (kept.owner != call.owner and broken != "R21"):
        return None
    return kept._replace(reading=call.reading)


def knows(kept: Kept | None, owner: str | None, confirmed: int) -> bool:
    """Rules R9 and R14: the owner is current, and its last confirmed write is there."""
    return kept is not None and kept.owner == owner and kept.seq >= confirmed


def load(kept: Kept | None, owner: str | None, confirmed: int, series: bytes, broken: str) -> Row | None:
    """Rule R9. Raises `FencedError`."""
    if not knows(kept, owner, confirmed) and broken != "R9":
        raise FencedError
    found = dict(kept.rows).get(series) if kept else None
    return decode(found) if found else None
