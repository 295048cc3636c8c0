"""Time between the readings of a series: what is usual, and what is done about a gap. On the host.

The usual interval is a running mean of the times between readings in which each counts at most as twice, and at least
as half, of what was usual before it (a winsorised mean): one long pause hardly moves it, a lasting change does within
some ten readings, and for a regular series it is exact from the second reading on. Equal times say nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stream_gru.columns import Bools, Floats, Ints, Readings
from stream_gru.engine.row import NEVER, Structured
from stream_gru.settings import Gaps

AFTER = {"reset": 24.0, "impute": 1.5}  # usual intervals, where `gaps.after` does not say
NO_LIMIT = int(np.iinfo(np.int64).max)
SETTLED = 8  # readings, before which the usual interval is no measure yet

_RATE = 1 / 8
_MOST = 2.0


def usual(interval: Floats, gap: Floats) -> Floats:
    """The usual intervals (N,), in ms, after readings that came `gap` (N,) ms after the ones before; 0: not known."""
    clipped = np.clip(gap, interval / _MOST, interval * _MOST)
    return np.where(gap > 0, np.where(interval > 0, interval + _RATE * (clipped - interval), gap), interval)


def missed(interval: Floats, gap: Floats, after: float) -> Ints:
    """How many readings at the usual `interval` (N,) would have fit into each `gap` (N,); 0 where the gap is shorter
    than `after` (at least 1.5) usual intervals, and where those are not known."""
    ratio = np.divide(gap, interval, out=np.zeros_like(gap), where=interval > 0)
    return np.where(ratio >= after, np.rint(ratio) - 1, 0).astype(np.int64)


def fill(heads: Structured, present: Bools, missing: Bools, most: int) -> Bools:
    """Which of the `missing` values (N, F) are filled in: those of series that had any before, `most` in a row.

    Counts them in the `heads` (N,); `present` (N, F) values end the row.
    """
    if not most:
        return np.zeros_like(missing)
    filled: Bools = missing & (heads["seen"] > 0) & (heads["filled"] < most)
    heads["filled"] = np.where(present, 0, heads["filled"] + filled)
    return filled


def measure(settings: Gaps, timestamp: Ints, heads: Structured, live: Bools) -> tuple[Floats, Ints]:
    """The usual intervals (N,) after readings at `timestamp` (N,) of series with these `heads` (N,), and how many
    readings are missed before each, (N,), by the settings: 0 where nothing is to be done about it.

    Only `live` (N,) ones count.
    """
    gap = np.where(live & (heads["timestamp"] != NEVER), timestamp - heads["timestamp"], 0).astype(np.float64)
    lacking = np.zeros(len(gap), np.int64)
    if settings.policy != "carry":
        settled = (heads["seen"] >= SETTLED).any(1)
        lacking = settled * missed(heads["interval"], gap, settings.after or AFTER[settings.policy])
    return usual(heads["interval"], gap), lacking


def between(readings: Readings, heads: Structured, lacking: Ints, limit: int) -> Iterator[tuple[Ints, Readings]]:
    """The missed readings before N `readings`: one without a value at each time, evenly in the gap, up to `limit`.

    Yields which of the N series lack one more, and those.
    """
    apart = (readings.timestamp - heads["timestamp"]) / (lacking + 1)
    for k in range(min(int(lacking.max()), limit)):
        some = np.flatnonzero(lacking > k)
        time = heads["timestamp"][some] + np.rint((k + 1) * apart[some]).astype(np.int64)
        nothing = np.full((len(some), readings.value.shape[1]), np.nan)
        # Offsets only have to rise: the row takes that of the reading itself at the end.
        yield some, Readings(readings.slot[some], heads["offset"][some] + k + 1, time, nothing)
