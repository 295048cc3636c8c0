"""How good forecasts are, relative to repeating the last value."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from stream_gru.columns import Bools, Floats
from stream_gru.evaluation.panel import Panel
from stream_gru.evaluation.streaming import Predicted

LEVELS = (0.01, 0.05, *(round(0.1 * i, 1) for i in range(1, 10)), 0.95, 0.99)  # that CRPS is averaged over
SPANS = ((1, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 512), (8, 64))  # points seen, from - to
TRACKED = 64  # points seen, from which on intervals are expected to cover what they say; as `detection.calibration`
_RATIO_LEAST, _RATIO_MOST = 0.01, 100.0  # of one series, so that none decides a geometric mean


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of one forecaster on the S series of a panel; NaN where a series can't say."""

    mase: Floats  # (S,) mean absolute error / that of the last value, over the whole stream
    crps: Floats  # (S,) the same denominator: the CRPS of a point forecast is its absolute error
    by_points: dict[tuple[int, int], Floats]
    coverage: Floats  # (S,) share of readings in the 90% interval, from `TRACKED` points on
    by_step: dict[int, Floats]  # MAE so many steps ahead / that of the last value


def assess(panel: Panel, predicted: Predicted, judged: Bools) -> Accuracy:
    """`judged` (N,) are the readings that count, the same for all forecasters that are compared."""
    middle = predicted.quantiles[:, predicted.levels.index(0.5)]
    move = panel.y - panel.last
    error, naive = np.abs(move - middle), np.abs(move)
    spans = {(a, b): judged & (panel.row >= a) & (panel.row < b) for a, b in SPANS}
    low, high = (predicted.quantiles[:, predicted.levels.index(level)] for level in (0.05, 0.95))
    # Forecasts are kept in single precision: a value on the bound lies within.
    room = 1e-6 * np.abs(move) + 1e-12 * np.abs(panel.y)
    inside = (move >= low - room) & (move <= high + room)
    by_step, now = {}, panel.known()
    for k, step in enumerate(predicted.steps):
        target = panel.target(step)
        median = predicted.medians[:, k]
        known = np.isfinite(target) & np.isfinite(median)
        if known.any():
            by_step[step] = _ratio(panel, np.abs(target - now - median), np.abs(target - now), known)
    return Accuracy(
        _ratio(panel, error, naive, judged),
        _ratio(panel, crps(move, predicted), naive, judged),
        {span: _ratio(panel, error, naive, mask) for span, mask in spans.items()},
        panel.mean(inside.astype(np.float64), judged & (panel.row >= TRACKED)),
        by_step,
    )


def crps(move: Floats, predicted: Predicted) -> Floats:
    """(N,) continuous ranked probability score of `move`, (N,) from the value before to the reading: twice the pinball
    loss, averaged over `LEVELS`.

    A level that was not forecast is read off between its neighbours, or beyond the outermost two, linearly in normal
    scores (between 5%, 50% and 95%: as if either side were a normal distribution).
    """
    weights = _weights(predicted.levels, LEVELS)
    total = np.zeros(len(move))
    for level, weight in zip(LEVELS, weights, strict=True):
        below = move - predicted.quantiles @ weight
        total += 2 * np.maximum(level * below, (level - 1) * below)
    return total / len(LEVELS)


def _weights(given: tuple[float, ...], wanted: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """(W, L) what each given quantile contributes to each wanted one."""
    normal = NormalDist()
    known = [normal.inv_cdf(level) for level in given]
    rows = np.zeros((len(wanted), len(given)), np.float32)
    for row, level in zip(rows, wanted, strict=True):
        z = normal.inv_cdf(level)
        right = int(np.clip(np.searchsorted(known, z), 1, len(known) - 1))
        share = (z - known[right - 1]) / (known[right] - known[right - 1])
        row[right - 1], row[right] = 1 - share, share
    return rows


def _ratio(panel: Panel, error: Floats, naive: Floats, mask: Bools) -> Floats:
    """(S,) mean of one over mean of the other, within bounds; NaN where the second is 0: the value never changed."""
    below = panel.mean(naive, mask)
    with np.errstate(invalid="ignore"):
        ratio = panel.mean(error, mask) / np.where(below > 0, below, np.nan)
    return np.clip(ratio, _RATIO_LEAST, _RATIO_MOST)
