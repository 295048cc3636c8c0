"""Finding the one record that crashes whoever scores it: pure decisions, from what owners before this one left behind.

Before it scores a batch a worker leaves word in the store of which records it is about to try (rule R21). If it ends
without handing the partition over, it may have been killed, or may have died of one of these: they are suspects, and
its successor tries them alone and in small pieces, again with word of each. What three ends in a row point at is not
tried again: it becomes a dead letter.

So a record that crashes every worker costs three crashes, wherever it stands: one in a batch, one in a piece of that,
one alone; of a small batch, one in it and two alone. What ends workers by chance hits another record each time, and
blames nothing. All other records are read at full speed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt

import msgspec

DEATHS = 3  # ends in a row that make a record a dead letter
ALONE = 64  # suspects of which each is tried alone; of more, small pieces first. Others are read so many at a time
SUSPECTS = 8  # ranges that are remembered, the latest ones: the word left in the store stays short


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets [first, end), and how many workers in a row ended while they tried some of them."""

    first: int
    end: int
    deaths: int = 0

    def holds(self, other: Span) -> bool:
        """Whether `other` lies in here."""
        return self.first <= other.first and other.end <= self.end

    @property
    def step(self) -> int:
        """How many of these are tried together."""
        few = self.end - self.first <= ALONE or self.deaths > 1
        return 1 if few else isqrt(self.end - self.first)


@dataclass(frozen=True, slots=True)
class ReadingGuard:
    """What an owner reads with care, and what it may not read at all. `str` and `after` carry it to the next owner."""

    suspects: tuple[Span, ...] = ()
    trying: Span | None = None  # what this owner is about to score
    refused: tuple[int, ...] = ()  # offsets of dead letters
    handed_over: bool = False  # by an owner that ended as it should

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()

    def on(self, position: int) -> bool:
        """Whether anything from `position` on is to be read with care."""
        return any(s.end > position for s in self.suspects) or any(offset >= position for offset in self.refused)

    def pieces(self, offsets: Sequence[int]) -> Iterator[slice]:
        """How to cut records in hand, at rising offsets: each piece is scored before the next is touched.

        Ask `blames` of each first, and where it blames nothing, `tries`.
        """
        start = 0
        while start < len(offsets):
            stop = start + self._together(offsets, start)
            yield slice(start, stop)
            start = stop

    def blames(self, offsets: Sequence[int]) -> ReadingGuard | None:
        """If this piece is a record that becomes a dead letter unread: the guard that knows so."""
        first = offsets[0]
        if first in self.refused:
            return self
        suspect = next((s for s in self.suspects if (s.first, s.end) == (first, first + 1)), None)
        if suspect is None or suspect.deaths < DEATHS:
            return None
        return replace(self, suspects=_but(self.suspects, suspect), refused=(*self.refused, first))

    def tries(self, first: int, last: int) -> ReadingGuard:
        """The guard while records from `first` to `last` are scored; the store should know before."""
        return replace(self, trying=Span(first, last + 1))

    def past(self, position: int) -> ReadingGuard:
        """The guard once everything below `position` was scored, with nothing being tried."""
        return replace(self, suspects=tuple(s for s in self.suspects if s.end > position), trying=None)

    def left(self, stored: int) -> str:
        """What an owner leaves behind that hands over, having stored everything below `stored`; mostly nothing."""
        rest = _from(self, stored)
        return str(replace(rest, handed_over=True)) if rest.on(stored) else ""

    def _together(self, offsets: Sequence[int], start: int) -> int:
        """How many records from `start` on make one piece."""
        first, left = offsets[start], len(offsets) - start
        if first in self.refused:
            return 1
        inside = next((s for s in self.suspects if s.first <= first < s.end), None)
        most = min(left, inside.step if inside else ALONE if self.on(first) else left)
        borders = [*self.refused, *(at for s in self.suspects for at in (s.first, s.end))]
        border = min((at for at in borders if at > first), default=None)
        return most if border is None else min(most, bisect_left(offsets, border, start) - start)


def after(reading: str, position: int) -> ReadingGuard:
    """What the next owner does about what was left behind in the store: `Assigned.reading`, of any earlier owner.

    It begins at `position`, the stored offset. What lies below it was scored, whoever ended since.
    """
    if not reading:
        return ReadingGuard()
    was = msgspec.json.decode(reading, type=ReadingGuard)
    now = _from(was, position)
    if was.handed_over or was.trying is None or was.trying.end <= position:
        return now
    tried = Span(max(was.trying.first, position), was.trying.end)
    known = next((s for s in now.suspects if s.holds(tried)), None)
    tried = replace(tried, deaths=(known.deaths if known else 0) + 1)
    return replace(now, suspects=(*_but(now.suspects, known), tried)[-SUSPECTS:])


def handed_over(reading: str) -> bool:
    """Whether the owner before ended as it should, or there was none."""
    return not reading or msgspec.json.decode(reading, type=ReadingGuard).handed_over


def _from(guard: ReadingGuard, position: int) -> ReadingGuard:
    """Without what nobody reads again."""
    suspects = tuple(replace(s, first=max(s.first, position)) for s in guard.suspects if s.end > position)
    return ReadingGuard(suspects, None, tuple(offset for offset in guard.refused if offset >= position))


def _but(suspects: tuple[Span, ...], one: Span | None) -> tuple[Span, ...]:
    return tuple(s for s in suspects if s is not one)
