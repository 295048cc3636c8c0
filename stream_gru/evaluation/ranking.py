"""How well a score ranks anomalous rows above normal ones, and how many events it finds at a fixed false-alarm rate.

No point-adjusted F1: with it random scores look good (Kim et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream_gru.columns import Bools, Floats
from stream_gru.errors import DataError
from stream_gru.evaluation.cases import runs

BUFFER_ROWS = 100  # rows, of the widest buffer around an anomaly in VUS-PR
_GRID_THRESHOLDS = 1000  # thresholds tried where false alarms a day are limited


def require() -> None:
    """Raise `DataError` where scikit-learn is missing."""
    try:
        import sklearn.metrics  # type: ignore[import-untyped]  # noqa: F401 - ships no types; only whether it is there
    except ImportError:
        raise DataError("AUC-PR needs scikit-learn: pip install 'stream-gru[training]'") from None


def average_precision(score: Floats, truth: Bools) -> float:
    """Area under the precision-recall curve, as a sum over its steps."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, score))


def best_f1(score: Floats, truth: Bools) -> float:
    """F1 of rows with the threshold that is best for it."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    hits = np.cumsum(truth[order])[ends]
    return float((2 * hits / (ends + 1 + np.count_nonzero(truth))).max())


def vus_pr(score: Floats, truth: Bools, buffer: int = BUFFER_ROWS) -> float:
    """Volume under the surface of range-based precision and recall (Paparrizos et al. 2022).

    For every width of the buffer from 0 to `buffer` the labels fade out within half of it on both sides of an anomaly,
    a recall counts with the share of anomalies that were touched at all, and the areas under the curves are averaged.
    O(rows x buffer).
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    detected = ends + 1.0
    events = runs(truth)
    positive = np.count_nonzero(truth)
    distance = _distance(truth)
    areas = []
    for width in range(buffer + 1):
        reach = width // 2
        near = (distance > 0) & (distance <= reach)
        soft = truth.astype(np.float64)
        soft[near] = np.sqrt(1 - distance[near] / width)
        earned = np.cumsum(soft[order])[ends]
        blurred = np.cumsum(np.where(truth, 0.0, soft)[order])[ends]  # the part of the buffers that was detected
        peaks = np.sort([score[max(a - reach, 0) : b + reach + 1].max() for a, b in events])
        touched = 1 - np.searchsorted(peaks, score[order][ends]) / len(events)
        recall = np.minimum(earned / (positive + blurred / 2), 1) * touched
        areas.append(float(np.sum(np.diff(recall, prepend=0.0) * earned / detected)))
    return float(np.mean(areas))


def threshold_for_share(scores: Sequence[Floats], truths: Sequence[Bools], share: float) -> float:
    """The lowest threshold that at most `share` of the normal rows of all cases lie above."""
    normal = np.concatenate([score[~truth] for score, truth in zip(scores, truths, strict=True)])
    allowed = int(share * len(normal))
    return float(np.sort(normal)[len(normal) - 1 - allowed])


def threshold_for_alarms(scores: Sequence[Floats], truths: Sequence[Bools], days: float, per_day: float) -> float:
    """The lowest threshold, and all above it, at which no more than `per_day` false alarms begin a day on average."""
    pool = np.sort(np.concatenate(list(scores)))[::-1]
    ranks = np.unique(np.geomspace(1, len(pool), _GRID_THRESHOLDS).astype(np.int64)) - 1  # dense where alarms are few
    grid = np.unique(pool[ranks])[::-1]
    lowest = float(grid[0])
    for threshold in grid.tolist():
        if sum(false_alarms(s > threshold, t) for s, t in zip(scores, truths, strict=True)) > per_day * days:
            break
        lowest = threshold
    return lowest


def false_alarms(flag: Bools, truth: Bools) -> int:
    """How many times flags begin outside the anomalies."""
    begins = flag & ~np.r_[False, flag[:-1]]
    return int(np.count_nonzero(begins & ~truth))


def events_found(flags: Sequence[Bools], truths: Sequence[Bools]) -> tuple[int, int]:
    """Anomalies with a flag in them, and all anomalies."""
    found = [flag[a : b + 1].any() for flag, truth in zip(flags, truths, strict=True) for a, b in runs(truth)]
    return int(np.count_nonzero(found)), len(found)


def _distance(truth: Bools) -> Floats:
    """(N,) rows to the nearest anomalous row."""
    at, row = np.flatnonzero(truth), np.arange(len(truth))
    right = np.searchsorted(at, row).clip(max=len(at) - 1)
    left = (right - 1).clip(min=0)
    nearest: Floats = np.minimum(np.abs(at[right] - row), np.abs(at[left] - row)).astype(np.float64)
    return nearest
