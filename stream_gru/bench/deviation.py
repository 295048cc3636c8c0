"""Whether a signal stands out where something happened: labelled windows against all others of the same length.

A window is summed up by the peak of the signal in it. Its rank among the windows of its series that touch no label is
the area under the ROC curve (AUC) of telling it from them: 0.5 is chance, 1 is never mistaken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from stream_gru.columns import Bools, Floats, Ints

RATE = 0.005  # of the running baseline: some 200 readings
_LEAST = 20  # windows without a label that one is compared with
_DRAWS = 2000
_FALSE = 0.2  # share of the windows without a label in which a signal may pass its limit


@dataclass(frozen=True)
class Event:
    """Something happened to a series: readings [first, last) belong to it, `at` is when."""

    first: int
    last: int
    at: int


@dataclass(frozen=True)
class Case:
    """One series with its signals (T,); the first `start` readings don't count."""

    name: str
    signals: Mapping[str, Floats]
    events: Sequence[Event]
    start: int


@dataclass(frozen=True)
class _Window:
    """How one event looked in every signal."""

    case: str
    rank: dict[str, float]
    both: dict[str, float]  # rank of the signal's rank plus the yardstick's
    delay: dict[str, float]  # readings from `Event.at` to where the signal passes its limit; NaN: never


def baseline(values: Floats) -> tuple[Floats, Floats]:
    """Running mean and deviation of values (T, ...) over what came before each; the first ones are NaN."""
    flat = values.reshape(len(values), -1)
    columns = pl.DataFrame(flat, schema=[str(i) for i in range(flat.shape[1])], orient="row")
    mean = columns.select(pl.all().ewm_mean(alpha=RATE).shift(1)).to_numpy()
    deviation = columns.select(pl.all().ewm_std(alpha=RATE).shift(1)).to_numpy()
    return mean.reshape(values.shape), deviation.reshape(values.shape)


def unusual(values: Floats, floor: float) -> Floats:
    """How many running deviations, of `floor` at least, values (T,) lie above their running mean; 0 at first."""
    mean, deviation = baseline(values)
    return np.nan_to_num((values - mean) / np.maximum(deviation, floor))


def compare(cases: Sequence[Case], yardstick: str, seed: int = 0) -> dict[str, Any]:
    """Each signal's AUC with a 95% bootstrap interval over the series, and the differences to the yardstick's.

    `both` is the AUC of the signal and the yardstick together. `hits` is the share of events in which a signal passes
    a limit that one window in five without a label passes too; `delay` is the median of the readings from the event
    until it does, and `behind` the same from where the yardstick does, over the events in which both do.
    """
    windows = [window for case in cases for event in case.events if (window := _look(case, event, yardstick))]
    left_out = sum(len(case.events) for case in cases) - len(windows)
    names = sorted({window.case for window in windows})
    found: dict[str, Any] = {"events": len(windows), "left_out": left_out, "series": len(names), "signals": {}}
    if not windows:
        return found
    member = np.array([names.index(window.case) for window in windows])
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), _DRAWS)
    weights = draws[:, member]  # (draws, windows)

    def estimate(values: Floats) -> list[float]:
        """The mean, and the bounds of its interval."""
        means = (weights * values).sum(1) / np.maximum(weights.sum(1), 1)
        return [round(float(v), 3) for v in (values.mean(), *np.quantile(means, (0.025, 0.975)))]

    judge = np.array([window.rank[yardstick] for window in windows])
    passed = np.array([window.delay[yardstick] for window in windows])
    for name in windows[0].rank:
        rank = np.array([window.rank[name] for window in windows])
        delay = np.array([window.delay[name] for window in windows])
        found["signals"][name] = {
            "auc": estimate(rank),
            "difference": estimate(rank - judge),
            "both": estimate(np.array([window.both[name] for window in windows])),
            "hits": round(float(np.isfinite(delay).mean()), 3),
            "delay": _median(delay),
            "behind": _median(delay - passed),
        }
    return found


def _look(case: Case, event: Event, yardstick: str) -> _Window | None:
    """None: there is too little without a label to compare it with."""
    length = event.last - event.first
    size = len(next(iter(case.signals.values())))
    free = np.ones(size, np.bool_)
    free[: case.start] = False
    for other in case.events:
        free[other.first : other.last] = False
    if size < length or not length:
        return None
    apart: Bools = np.asarray(np.lib.stride_tricks.sliding_window_view(free, length).all(1))
    if apart.sum() < _LEAST:
        return None
    ranks, delays, peaks = {}, {}, {}
    for name, signal in case.signals.items():
        peaks[name] = _peaks(signal, length)
        ranks[name] = _rank(peaks[name], apart, event.first)
        limit = np.quantile(peaks[name][apart], 1 - _FALSE)
        over = np.flatnonzero(signal[event.first : event.last] > limit)
        delays[name] = float(event.first + over[0] - event.at) if len(over) else np.nan
    places = {name: _places(values, apart) for name, values in peaks.items()}
    both = {name: _rank(places[name] + places[yardstick], apart, event.first) for name in peaks}
    return _Window(case.name, ranks, both, delays)


def _peaks(signal: Floats, length: int) -> Floats:
    """The peak of each window, (T - length + 1,)."""
    return pl.Series(signal).rolling_max(length).to_numpy()[length - 1 :]


def _rank(values: Floats, apart: Bools, index: int) -> float:
    """Share of `values[apart]` below the one at `index`; equal ones count half."""
    others = values[apart]
    return float((others < values[index]).mean() + 0.5 * (others == values[index]).mean())


def _places(values: Floats, apart: Bools) -> Floats:
    """Share of `values[apart]` below each of `values`; equal ones count half."""
    others = np.sort(values[apart])
    below: Ints = np.searchsorted(others, values) + np.searchsorted(others, values, "right")
    return below / (2 * len(others))


def _median(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(np.median(known)), 1) if len(known) else None
