"""F1, false and missing alarm rate of rows, pooled over the files, as the leaderboard of SKAB counts them.

Flagging each row gives an F1 of about .7 there: F1 says little without the false alarm rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_gru.columns import Bools, Floats


@dataclass(frozen=True, slots=True)
class Rates:
    """Of flagged rows; the rates in percent."""

    f1: float
    far: float  # of the normal rows, those flagged
    mar: float  # of the anomalous rows, those not flagged


def rates(flag: Bools, truth: Bools) -> Rates:
    """Both (N,)."""
    hits, false = (int(np.count_nonzero(flag & part)) for part in (truth, ~truth))
    positive = int(np.count_nonzero(truth))
    negative = len(truth) - positive
    f1 = 2 * hits / (hits + false + positive) if hits else 0.0
    return Rates(f1, 100 * false / max(negative, 1), 100 * (positive - hits) / max(positive, 1))


def best_threshold(score: Floats, truth: Bools, most_far: float = 100.0) -> float:
    """The threshold with the highest F1 among those that flag at most `most_far` percent of the normal rows; rows that
    reach it are flagged. inf where there is none."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    hits = np.cumsum(truth[order])[ends]
    f1 = 2 * hits / (ends + 1 + np.count_nonzero(truth))
    allowed = 100 * (ends + 1 - hits) <= most_far * np.count_nonzero(~truth)
    if not (truth.any() and allowed.any()):
        return float("inf")
    return float(score[order][ends[np.argmax(np.where(allowed, f1, -1.0))]])
