"""Finding the one record that crashes whoever scores it: pure decisions, from what owners before this one left behind.

A worker that ends without handing a partition over may have been killed, or may have died of a record that it read.
Its successor reads what that worker can have reached, [stored offset, end of the log), in small pieces, and before
each it leaves word in the store of which it is about to try (rule R21). A worker that ends then leaves a short list of
suspects, which are tried one by one. What three ends in a row point at is not tried again: it becomes a dead letter.

So a record that crashes every worker costs three crashes, wherever it stands: one at full speed, one in a piece of the
region, one alone; in a short region, one at full speed and two alone. What ends workers by chance moves on, and blames
nothing unless it hits the same record three times. Beyond the region nothing is written and nothing costs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

DEATHS = 3  # unclean ends that make a record a dead letter
PIECE = 256  # records that are tried together, at most
PIECES = 16  # that a region is cut into, at least


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets [first, end), and how many unclean ends in a row fell among them."""

    first: int
    end: int
    deaths: int = 0

    def holds(self, other: Span) -> bool:
        """Whether `other` lies in here."""
        return self.first <= other.first and other.end <= self.end


@dataclass(frozen=True, slots=True)
class Guard:
    """What an owner reads with care, and what it may not read at all. `str` and `after` carry it to the next owner."""

    region: Span | None = None  # to be read in pieces; None: read at full speed
    suspect: Span | None = None  # the part of it that was being tried when a worker ended
    trying: Span | None = None  # what this owner is about to score
    refused: tuple[int, ...] = ()  # offsets that are dead letters
    handed_over: bool = False  # by an owner that ended as it should

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()

    @property
    def on(self) -> bool:
        """Whether anything is still to be read with care."""
        return self.region is not None

    def pieces(self, offsets: Sequence[int]) -> Iterator[slice]:
        """How to cut records in hand, at rising offsets: each piece is to be tried, then scored, before the next.

        Ask `blames` of each piece first, and where it blames nothing, `tries`. What lies beyond the region is one.
        """
        start = 0
        while start < len(offsets):
            stop = start + self._together(offsets, start)
            yield slice(start, stop)
            start = stop

    def blames(self, offsets: Sequence[int]) -> Guard | None:
        """If this piece is one record that is a dead letter unread: the guard that knows so. The ends of workers are
        explained by it, so nothing else is suspected any more."""
        first, suspect = offsets[0], self.suspect
        if first in self.refused:
            return self
        if suspect is None or suspect.deaths < DEATHS or (suspect.first, suspect.end) != (first, first + 1):
            return None
        return Guard(self.region and replace(self.region, deaths=0), None, None, (*self.refused, first))

    def tries(self, offsets: Sequence[int]) -> Guard:
        """The guard while this piece is scored; it must be in the store before."""
        return replace(self, trying=Span(offsets[0], offsets[-1] + 1))

    def past(self, position: int) -> Guard:
        """The guard once everything below `position` was scored, with nothing being tried."""
        region = self.region if self.region and position < self.region.end else None
        suspect = self.suspect if self.suspect and region and position < self.suspect.end else None
        return replace(self, region=region, suspect=suspect, trying=None)

    def left(self, stored: int) -> str:
        """What an owner leaves behind that hands over, having stored everything below `stored`; mostly nothing."""
        rest = _forget(self.past(stored), stored)
        return str(replace(rest, handed_over=True)) if rest.on or rest.refused else ""

    def _together(self, offsets: Sequence[int], start: int) -> int:
        """How many records from `start` on make one piece."""
        first, most = offsets[start], len(offsets) - start
        borders = [*self.refused]
        if self.region and first < self.region.end:
            most = min(most, PIECE, max(1, (self.region.end - self.region.first) // PIECES))
            borders.append(self.region.end)
        if self.suspect:
            borders.append(self.suspect.first)
        if first in self.refused or (self.suspect and self.suspect.first <= first < self.suspect.end):
            return 1
        border = min((offset for offset in borders if offset > first), default=None)
        return most if border is None else min(most, bisect_left(offsets, border, start) - start)


def after(reading: str, position: int, log_end: int) -> Guard:
    """What the next owner does about what was left behind in the store: `Assigned.reading`, of any earlier owner.

    It begins at `position`, the stored offset, in a log that ends at `log_end`. Nothing left behind: all is well.
    """
    if not reading:
        return Guard()
    left = msgspec.json.decode(reading, type=Guard)
    was = _forget(replace(left, handed_over=False), position)
    if left.handed_over:
        return was.past(position)
    if was.trying is not None and was.trying.end > position:
        return _suspecting(was, Span(max(was.trying.first, position), was.trying.end), position)
    if was.region is not None:  # it had not got to this partition, or not to anything that is not stored by now
        return was.past(position)
    if position < log_end:
        return replace(was, region=Span(position, log_end, 1))
    return was


def _forget(guard: Guard, position: int) -> Guard:
    """Without what was refused below `position`: nobody reads it again."""
    return replace(guard, refused=tuple(offset for offset in guard.refused if offset >= position))


def _suspecting(was: Guard, tried: Span, position: int) -> Guard:
    """An owner ended while it tried `tried`."""
    known = was.suspect if was.suspect and was.suspect.holds(tried) else was.region
    region = was.region or tried
    return Guard(
        replace(region, first=max(region.first, position), end=max(region.end, tried.end)),
        replace(tried, deaths=(known.deaths if known else 0) + 1),
        None,
        was.refused,
    )
