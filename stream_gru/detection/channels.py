"""What the detector watches of each feature, a row a thing: running averages, channels, watched deviations.

`detector` derives from these tables how wide its part of the row is, the order of all numbers in it, and its constants.
The spans, and most of the channels, go back to a search on 38 series of NAB (Lavin and Ahmad 2015): there the sum of
many channels found more than the largest of them, and channels that watch one side alone, or how often a limit is
exceeded, each added to it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Direction = Literal["both", "above", "below"]
Watched = Literal["value", "residual", "size", "excess", "change"]


class Average(NamedTuple):
    """An exponential average of one quantity."""

    name: str
    span: int  # readings: it forgets e times in so many
    of: Watched
    why: str


AVERAGES = (
    Average("level 5", 5, "value", "where the series is now; only a deviation looks at it"),
    Average("level 20", 20, "value", "a shift that lasts for some readings"),
    Average("level 60", 60, "value", "a shift that lasts"),
    Average("drift 20", 20, "residual", "forecasts that are wrong on one side"),
    Average("drift 60", 60, "residual", "the same, for longer"),
    Average("error 20", 20, "size", "forecasts that are worse than usual, on whichever side"),
    Average("error 60", 60, "size", "the same, for longer"),
    Average("excess 15", 15, "excess", "how often the size of the residual is above its limit"),
    Average("excess 60", 60, "excess", "the same, for longer"),
    Average("activity", 60, "change", "how much the series moves from reading to reading"),
    Average("error", 3000, "size", "the usual size of a residual: the unit of the limit's steps; no channel"),
)
"""`of` is the reading's value; the residual of the forecast made a horizon before; the size of that; whether that size
is above its limit, 0 to 1; the size of the difference to the last value. The averages of the value are levels, kept
relative to the last value; they stand first."""
LEVELS = sum(row.of == "value" for row in AVERAGES)


class Channel(NamedTuple):
    """A quantity whose usual value and record are kept. It surprises where it comes above its record."""

    name: str
    of: str  # an average's name, or a quantity of the reading alone: value, size, stillness
    counts: Literal["always", "both", "above", "below"]  # always, or for anomalies in which direction
    why: str
    falls: bool = False  # turned upside down, to see what is unusually low
    level: bool = False  # kept relative to the last value
    unitless: bool = False  # not in units of the series


CHANNELS = (
    Channel("size", "size", "always", "a single reading far from its forecast"),
    Channel("error 20", "error 20", "always", "some readings that are forecast badly"),
    Channel("error 60", "error 60", "always", "many readings that are forecast badly"),
    Channel("excess 15", "excess 15", "always", "large residuals close together, none of them a record", unitless=True),
    Channel("excess 60", "excess 60", "always", "the same, farther apart", unitless=True),
    Channel("drift 20 up", "drift 20", "above", "readings that stay above their forecasts"),
    Channel("drift 60 up", "drift 60", "above", "the same, for longer"),
    Channel("drift 20 down", "drift 20", "below", "readings that stay below their forecasts", falls=True),
    Channel("drift 60 down", "drift 60", "below", "the same, for longer", falls=True),
    Channel("high", "value", "above", "a value that was never so high, whatever was forecast", level=True),
    Channel("high 20", "level 20", "above", "a level that was never so high", level=True),
    Channel("high 60", "level 60", "above", "the same, for longer", level=True),
    Channel("low", "value", "below", "a value that was never so low", falls=True, level=True),
    Channel("low 20", "level 20", "below", "a level that was never so low", falls=True, level=True),
    Channel("low 60", "level 60", "below", "the same, for longer", falls=True, level=True),
    Channel("activity", "activity", "both", "a series that moves more than ever"),
    Channel("stillness", "stillness", "both", "a series that hardly moves any more: a stuck sensor", unitless=True),
)
"""`stillness` is the logarithm of the usual activity's reciprocal. It must stay last, and `activity` before it."""


class Deviation(NamedTuple):
    """A quantity whose distance to the usual value says how far the series is from normal, for as long as it lasts."""

    name: str
    channel: str  # whose usual value is meant, and whose present one unless `average` says another
    both_ways: bool  # looks above and below, as the direction says; else above alone, and only for both directions
    why: str
    average: str = ""


DEVIATIONS = (
    Deviation("quick level", "high", True, "is back at once when the series is", "level 5"),
    Deviation("slow level", "high 60", True, "sees shifts that are small beside the noise"),
    Deviation("activity", "activity", False, "noise bursts, which do not move a level"),
    Deviation("stillness", "stillness", False, "flat lines"),
)
"""The rows without an `average` come last."""


def average(name: str) -> slice:
    """Where one average stands."""
    return _place([row.name for row in AVERAGES], name)


def channel(name: str) -> slice:
    """Where one channel stands."""
    return _place([row.name for row in CHANNELS], name)


def counts(channel: Channel, direction: Direction) -> bool:
    """Whether a channel counts where anomalies in this direction are looked for."""
    return direction == "both" or channel.counts in {"always", direction}


def _place(names: list[str], name: str) -> slice:
    return slice(names.index(name), names.index(name) + 1)
