"""What kind of series these are: how long, how regular, what repeats, how noisy, how they move. No judgement here.

Every number is one that `tools.advise` gives a reason with; of many series it is the median over them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_gru.columns import Bools, Floats, Ints
from stream_gru.training.advice.seasons import periods
from stream_gru.training.data.series import Series, SeriesCollection

_MOST_SERIES = 200  # looked at closely, evenly picked
_MOST_READINGS = 50_000  # of each, its last ones
_BLOCKS = 20  # of a series, whose medians tell how far it wanders


@dataclass(frozen=True, slots=True)
class Traits:
    """Of a history. Shares are 0-1, lengths in readings."""

    series: int
    readings: int
    typical: int  # readings of a series
    longest: int
    step_ms: int  # between readings
    irregular: float  # share of readings that come off the beat
    missing: float  # share of readings that should be there and are not
    gap: int  # the typical length of a gap
    period: int | None  # the shortest that repeats in most series
    repeats: float  # share of the variance that it explains, in cycles that it was not taken from
    longer: int | None  # a second, longer period
    repeats_longer: float  # share of what the first leaves
    noise: float  # share of the variance that neighbours don't tell
    wander: float  # how far the level moves, in typical deviations within a stretch
    unchanged: float  # share of readings that repeat the one before
    spikes: float  # share of moves larger than 10 typical ones
    sizes: float  # the largest spread of a series by the smallest, within one feature
    offsets: float  # how far apart the levels of series are, in their own spreads


def measure(history: SeriesCollection) -> Traits:
    """Look at all series, or at 200 of many, and at their last 50,000 readings."""
    every = history.series
    picked = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, _MOST_SERIES).astype(int))]
    known = [int(np.isfinite(one.value).sum()) for one in every]
    looked = [_Look.at(one) for one in picked]
    period, repeats = _agreed([(look.period, look.repeats) for look in looked])
    longer, repeats_longer = _agreed([(look.longer, look.repeats_longer) for look in looked])
    sizes, offsets = _differences(picked)

    def typical(name: str) -> float:
        return float(np.median([getattr(look, name) for look in looked]))

    return Traits(
        len(every),
        sum(known),
        int(np.median(known)),
        max(known),
        int(typical("step_ms")),
        typical("irregular"),
        float(np.mean([look.missing for look in looked])),
        int(np.median([look.gap for look in looked if look.gap] or [0])),
        period,
        repeats,
        longer,
        repeats_longer,
        typical("noise"),
        typical("wander"),
        typical("unchanged"),
        typical("spikes"),
        sizes,
        offsets,
    )


@dataclass(frozen=True, slots=True)
class _Look:
    step_ms: float
    irregular: float
    missing: float
    gap: int
    period: int | None
    repeats: float
    longer: int | None
    repeats_longer: float
    noise: float
    wander: float
    unchanged: float
    spikes: float

    @classmethod
    def at(cls, one: Series) -> _Look:
        real = np.isfinite(one.value)
        step_ms, irregular = beat(one.timestamp)
        value = grid(one.timestamp, one.value, step_ms)[-_MOST_READINGS:]
        gaps = runs(np.isnan(value))
        period, repeats, longer, repeats_longer = periods(value, step_ms)
        move = np.abs(np.diff(one.value[real]))
        moving = move[move > 0]
        return cls(
            step_ms,
            irregular,
            float(np.isnan(value).mean()),
            int(np.median(gaps)) if len(gaps) else 0,
            period,
            repeats,
            longer,
            repeats_longer,
            noise(value),
            wander(value, period),
            float((move == 0).mean()) if len(move) else 0.0,
            float((moving > 10 * np.median(moving)).mean()) if len(moving) else 0.0,
        )


def beat(timestamp: Ints) -> tuple[float, float]:
    """The usual time between readings (ms), and the share of intervals that are no multiple of it, give or take 10%."""
    intervals = np.diff(timestamp).astype(float)
    intervals = intervals[intervals > 0]
    if not len(intervals):
        return 1.0, 0.0
    step = float(np.median(intervals))
    beats = intervals / step
    off = np.abs(beats - np.maximum(np.round(beats), 1)) > 0.1
    return step, float(off.mean())


def grid(timestamp: Ints, value: Floats, step_ms: float) -> Floats:
    """Readings on their beat, NaN where none came. Where most of that would be empty, just one after the other."""
    place = np.round((timestamp - timestamp[0]) / step_ms).astype(np.int64)
    if place[-1] >= 4 * len(value):
        return value
    out = np.full(int(place[-1]) + 1, np.nan)
    out[place] = value
    return out


def runs(flags: Bools) -> Ints:
    """The lengths of the stretches of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return edges[1::2] - edges[::2]


def noise(value: Floats) -> float:
    """The share of the variance that is white, from how far each value lies from the mean of its neighbours: 2/3 of
    that squared (Gasser, Sroka and Jennen-Steinmetz 1986)."""
    off = value[1:-1] - (value[:-2] + value[2:]) / 2
    off = off[np.isfinite(off)]
    total = np.nanvar(value)
    return min(float(2 / 3 * np.mean(off**2) / total), 1.0) if len(off) and total > 0 else 0.0


def wander(value: Floats, period: int | None) -> float:
    """How far the medians of stretches of whole periods are apart, a deviation, in deviations within a stretch."""
    length = max(len(value) // _BLOCKS, 1)
    if period:
        length = max(round(length / period), 1) * period
    parts = [value[i : i + length] for i in range(0, len(value) - length + 1, length)]
    parts = [part[np.isfinite(part)] for part in parts]
    parts = [part for part in parts if len(part) > 1]
    if len(parts) < 2:
        return 0.0
    inside = float(np.median([part.std() for part in parts]))
    between = float(np.std([np.median(part) for part in parts]))
    return between / inside if inside > 0 else (float("inf") if between > 0 else 0.0)


def _agreed(found: Sequence[tuple[int | None, float]]) -> tuple[int | None, float]:
    """The period that most series share, if half of them have one, and what it typically explains."""
    some = [period for period, _ in found if period]
    if 2 * len(some) < len(found) or not some:
        return None, 0.0
    period = Counter(some).most_common(1)[0][0]
    return period, float(np.median([share for each, share in found if each == period]))


def _differences(series: Sequence[Series]) -> tuple[float, float]:
    """How many times the largest spread is the smallest, and how far levels are apart, at worst of the features."""
    ratio, apart = 1.0, 0.0
    for feature in {one.feature for one in series}:
        values = [one.value[np.isfinite(one.value)] for one in series if one.feature == feature]
        spreads = np.array([value.std() for value in values])
        moving = spreads[spreads > 0]
        if len(moving) > 1:
            ratio = max(ratio, float(moving.max() / moving.min()))
            apart = max(apart, float(np.ptp([np.median(value) for value in values]) / np.median(moving)))
    return ratio, apart


def told(traits: Traits) -> list[tuple[str, str]]:
    """Names and numbers, for people."""
    period = f"{traits.period:,} readings, {traits.repeats:.0%} of the variance" if traits.period else "none found"
    longer = f"{traits.longer:,} readings, {traits.repeats_longer:.0%} of the rest" if traits.longer else "none found"
    return [
        ("readings of a series", f"{traits.typical:,}, at most {traits.longest:,}"),
        ("time between them", f"{traits.step_ms / 1000:,.10g} s, {traits.irregular:.1%} off the beat"),
        ("missing", f"{traits.missing:.1%}" + (f", {traits.gap:,} in a row" if traits.gap else "")),
        ("period", period),
        ("longer period", longer),
        ("white noise", f"{traits.noise:.1%} of the variance"),
        ("level wanders", f"{traits.wander:.2f} deviations"),
        ("unchanged readings", f"{traits.unchanged:.1%}"),
        ("sudden moves", f"{traits.spikes:.2%}"),
        ("spreads of series", f"{traits.sizes:,.1f} times at most"),
        ("levels of series", f"{traits.offsets:,.1f} spreads apart"),
    ]
