"""Detection baselines: scores of the rows of a case, each row judged by the rows before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from stream_gru.columns import Floats, Ints
from stream_gru.evaluation.cases import SuiteCase

_WINDOW_ROWS, _REFRESH_ROWS = 6400, 100  # of NAB's own windowed Gaussian detector
_LEAST_SPREAD = 1e-6  # of a window, so that a flat one is not divided by 0; NAB's own


def windowed_gaussian(case: SuiteCase) -> Floats:
    """1 - the tail probability under the mean and deviation of the last 6,400 rows, renewed every 100, as NAB's own
    baseline does it; features averaged. (T,)"""
    row = np.arange(len(case))
    renewed = np.maximum(row - _WINDOW_ROWS, 0) // _REFRESH_ROWS * _REFRESH_ROWS
    first, end = np.where(row < _WINDOW_ROWS, 0, renewed), np.where(row < _WINDOW_ROWS, row, renewed + _WINDOW_ROWS)
    z = _z(case.value, first, end)
    tail = np.asarray(0.5 * torch.erfc(torch.from_numpy(z / np.sqrt(2))), np.float64)
    score: Floats = np.where(row > 0, 1 - tail.mean(axis=1), 0.0)
    return score


def mean_z(case: SuiteCase) -> Floats:
    """Mean of |z| over the features, by the mean and deviation of the rows fed first; without any, of all rows before.
    (T,)"""
    row = np.arange(len(case))
    z = _z(case.value, np.zeros_like(row), np.full_like(row, case.warm) if case.warm else row)
    mean: Floats = z.mean(axis=1)
    return mean


def random(case: SuiteCase) -> Floats:
    """Noise, the same each time. (T,)"""
    return np.random.default_rng([len(case), *case.name.encode()]).random(len(case))


BASELINES: dict[str, Callable[[SuiteCase], Floats]] = {
    "windowed Gaussian": windowed_gaussian,
    "mean |z|": mean_z,
    "random": random,
}


def _z(value: Floats, first: Ints, end: Ints) -> Floats:
    """|z| of each row by the rows from `first` up to `end`; 0 where there are none, or the value is missing. (T, F)"""
    known = np.isfinite(value)
    start = value[np.argmax(known, axis=0), np.arange(value.shape[1])]  # keeps the sums small
    shifted = np.where(known, value - start, 0.0)
    count, total, square = (
        np.concatenate([np.zeros((1, value.shape[1])), np.cumsum(part, 0)]) for part in (known, shifted, shifted**2)
    )
    n, mean, power = (sums[end] - sums[first] for sums in (count, total, square))
    mean, power = mean / np.maximum(n, 1), power / np.maximum(n, 1)
    spread = np.sqrt(np.maximum(power - mean**2, 0))
    z = np.abs(shifted - mean) / np.where(spread > _LEAST_SPREAD, spread, _LEAST_SPREAD)
    return np.where(known & (n > 0), z, 0.0)
