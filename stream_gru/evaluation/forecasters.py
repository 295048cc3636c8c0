"""Forecasting baselines: textbook methods, online, all series of a panel side by side.

Each makes medians for all steps, and for the next reading a 90% interval of tracked quantiles of its own errors, the
same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from stream_gru.columns import Bools, Floats, Ints
from stream_gru.evaluation.panel import Panel
from stream_gru.evaluation.streaming import Predicted

_LEVELS = (0.05, 0.5, 0.95)
_FIRST_QUANTILE = 2.06  # mean absolute errors: where the 5% and 95% of a normal distribution lie, 1.645 x 1.253
_QUANTILE_STEP = 0.02  # mean absolute errors, how far a tracked quantile moves at a reading
_ERROR_RATE = 0.03  # of the running mean absolute error, a reading


class BaselineForecaster(Protocol):
    """S series; the state of the first n is advanced, of a column that is sorted by length."""

    def __init__(self, season: Ints) -> None: ...

    def update(self, x: Floats, present: Bools) -> None:
        """Learn from the next readings of the first n series, (n,) each; x is finite also where nothing is present."""

    def ahead(self, step: int, n: int) -> Floats:
        """(n,) forecasts of so many steps later; NaN if it makes none so far."""


class LastValue:
    """The last value."""

    def __init__(self, season: Ints) -> None:
        self.x = np.zeros(len(season))

    def update(self, x: Floats, present: Bools) -> None:
        self.x[: len(x)] = x

    def ahead(self, step: int, n: int) -> Floats:
        return self.x[:n].copy()


class Ewma:
    """Exponentially weighted moving average; of five smoothings the one that has erred least."""

    smoothing = np.array([[0.05], [0.1], [0.35], [0.6], [0.85]])
    rate = 0.03  # of the running errors

    def __init__(self, season: Ints) -> None:
        self.level = np.full((len(self.smoothing), len(season)), np.nan)
        self.error = np.zeros(self.level.shape)

    def update(self, x: Floats, present: Bools) -> None:
        level, error = self.level[:, : len(x)], self.error[:, : len(x)]
        moved = np.where(np.isnan(level), 0.0, x - level)
        error += np.where(present, self.rate * (np.abs(moved) - error), 0)
        level[:] = np.where(np.isnan(level), x, level + np.where(present, self.smoothing * moved, 0))

    def ahead(self, step: int, n: int) -> Floats:
        best: Floats = self.level[np.argmin(self.error[:, :n], axis=0), np.arange(n)]
        return best


class HoltWinters:
    """Additive, with the season of a day (Winters 1960), which begins as the first day's distance from its mean; until
    then without one. Level .7, trend .01, season .3."""

    alpha, beta, gamma = 0.7, 0.01, 0.3

    def __init__(self, season: Ints) -> None:
        self.period = season
        self.level = np.full(len(season), np.nan)
        self.trend = np.zeros(len(season))
        self.season = np.zeros((len(season), int(season.max())))
        self.first = np.zeros_like(self.season)  # day
        self.t = 0

    def update(self, x: Floats, present: Bools) -> None:
        n = len(x)
        level, trend, row, period = self.level[:n], self.trend[:n], np.arange(n), self.period[:n]
        at = self.t % period
        season = self.season[row, at]
        new = np.isnan(level)
        base = np.where(new, x, level + trend)
        learned = base + self.alpha * np.where(present & ~new, x - season - base, 0)
        trend += np.where(new | ~present, 0, self.beta * (learned - level - trend))
        older = present & (period > 1) & (self.t >= period)
        self.season[row, at] += np.where(older, self.gamma * (x - learned - season), 0)
        level[:] = learned
        self.first[row, at] = x
        for i in np.flatnonzero((self.t + 1 == period) & (period > 1)):
            day = self.first[i, : period[i]]
            self.season[i, : period[i]] = day - day.mean()
            level[i] = day.mean()
        self.t += 1

    def ahead(self, step: int, n: int) -> Floats:
        at = (self.t - 1 + step) % self.period[:n]
        made: Floats = self.level[:n] + step * self.trend[:n] + self.season[np.arange(n), at]
        return made


class SeasonalNaive:
    """The value of the same time a day before; the last value until there is one."""

    def __init__(self, season: Ints) -> None:
        self.period = season
        self.ring = np.full((len(season), int(season.max())), np.nan)
        self.x = np.zeros(len(season))
        self.t = 0

    def update(self, x: Floats, present: Bools) -> None:
        n = len(x)
        self.ring[np.arange(n), self.t % self.period[:n]] = x
        self.x[:n] = x
        self.t += 1

    def ahead(self, step: int, n: int) -> Floats:
        value = self.ring[np.arange(n), (self.t - 1 + step) % self.period[:n]]
        return np.where(np.isnan(value), self.x[:n], value)


class Autoregression:
    """AR(8) of the differences by recursive least squares, forgetting .998 (Haykin 2002); one step ahead. The last
    value while that has erred less."""

    order, forgetting, start, most = 8, 0.998, 0.3, 8.0

    def __init__(self, season: Ints) -> None:
        s = len(season)
        self.x = np.full(s, np.nan)
        self.past = np.zeros((s, self.order))
        self.theta = np.zeros((s, self.order))
        self.cov = np.tile(np.eye(self.order) * self.start, (s, 1, 1))
        self.scale = np.zeros(s)
        self.errors = np.zeros((2, s))  # of the regression and of the last value
        self.t = 0

    def update(self, x: Floats, present: Bools) -> None:
        n = len(x)
        self.t += 1
        dx = np.where(np.isnan(self.x[:n]), 0.0, x - self.x[:n])
        self.x[:n] = x
        unit = np.where(self.scale[:n] > 0, self.scale[:n], 1.0)
        target = np.clip(dx / unit, -self.most, self.most)
        past, theta, cov = self.past[:n], self.theta[:n], self.cov[:n]
        error = target - np.einsum("ni,ni->n", past, theta)
        rate = max(0.03, 1 / self.t)
        self.errors[:, :n] += np.where(present, rate * (np.abs([error, target]) - self.errors[:, :n]), 0)
        gain = np.einsum("nij,nj->ni", cov, past)
        gain /= (self.forgetting + np.einsum("ni,ni->n", past, gain))[:, None]
        learns = present & (self.scale[:n] > 0)
        theta += np.where(learns[:, None], gain * error[:, None], 0)
        shrunk = (cov - np.einsum("ni,nj->nij", gain, np.einsum("nij,nj->ni", cov, past))) / self.forgetting
        steady = learns & (np.trace(shrunk, axis1=1, axis2=2) < 50)
        cov[:] = np.where(steady[:, None, None], shrunk, cov)
        past[:] = np.where(present[:, None], np.column_stack([target, past[:, :-1]]), past)
        self.scale[:n] += np.where(present, max(0.01, 1 / self.t) * (np.abs(dx) - self.scale[:n]), 0)

    def ahead(self, step: int, n: int) -> Floats:
        if step > 1:
            return np.full(n, np.nan)
        move = np.einsum("ni,ni->n", self.past[:n], self.theta[:n]) * self.scale[:n]
        return self.x[:n] + np.where(self.errors[0, :n] < self.errors[1, :n], move, 0)


BASELINES: dict[str, Callable[[Ints], BaselineForecaster]] = {
    "last value": LastValue,
    "EWMA": Ewma,
    "Holt-Winters": HoltWinters,
    "AR by RLS": Autoregression,
    "seasonal naive": SeasonalNaive,
}


def predict(make: Callable[[Ints], BaselineForecaster], panel: Panel, steps: Sequence[int]) -> Predicted:
    """Forecasts of a baseline for each reading of `panel`, as `streaming.predict` has those of the engine."""
    lengths = np.diff(panel.first)
    order = np.argsort(-lengths, kind="stable")
    begins, ordered = panel.first[:-1][order], -lengths[order]
    known, present = panel.known(), np.isfinite(panel.y)
    forecaster, intervals = make(panel.season[order]), _Intervals(len(order))
    quantiles = np.full((len(panel.y), 3), np.nan, np.float32)
    medians = np.full((len(panel.y), len(steps)), np.nan, np.float32)
    before = np.full(len(order), np.nan)
    for t in range(int(lengths.max())):
        n = int(np.searchsorted(ordered, -t))  # series longer than t
        at = begins[:n] + t
        x = known[at]
        here = present[at] & np.isfinite(before[:n])
        quantiles[at] = (before[:n] - panel.last[at])[:, None] + intervals.offsets(n)
        intervals.update(np.where(here, x - before[:n], 0), here)
        started = np.isfinite(x)
        forecaster.update(np.where(started, x, 0.0), present[at])
        for k, step in enumerate(steps):
            medians[at, k] = np.where(started, forecaster.ahead(step, n) - x, np.nan)
        before[:n] = np.where(started, forecaster.ahead(1, n), np.nan)
    return Predicted(_LEVELS, quantiles, tuple(steps), medians)


class _Intervals:
    """Tracked quantiles of errors, in units of their running mean size (stochastic gradient of the pinball loss)."""

    def __init__(self, s: int) -> None:
        self.scale, self.count = np.zeros(s), np.zeros(s)
        self.low, self.high = np.full(s, -_FIRST_QUANTILE), np.full(s, _FIRST_QUANTILE)

    def offsets(self, n: int) -> Floats:
        """(n, 3) of the levels from the forecast."""
        scale = self.scale[:n]
        return np.stack([self.low[:n] * scale, np.zeros(n), self.high[:n] * scale], axis=1)

    def update(self, error: Floats, present: Bools) -> None:
        n = len(error)
        scale = self.scale[:n]
        learns = present & (scale > 0)
        self.low[:n] += np.where(learns, _QUANTILE_STEP * (_LEVELS[0] - (error < self.low[:n] * scale)), 0)
        self.high[:n] += np.where(learns, _QUANTILE_STEP * (_LEVELS[2] - (error < self.high[:n] * scale)), 0)
        self.count[:n] += present
        rate = np.maximum(1 / np.maximum(self.count[:n], 1), _ERROR_RATE)
        scale += np.where(present, rate * (np.abs(error) - scale), 0)
