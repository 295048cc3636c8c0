"""The score of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015), version 1.1.

The first 15% of a file's rows, at most 750, do not count. A row is a detection where its score reaches the threshold,
one for all files. In a labelled window the best detection earns up to `hit`, more the earlier it comes, and a window
without any costs `miss`. Every detection outside costs up to `false`, less just after a window. 0 is what a detector
gets that never says anything, 100 one that finds each window at its first row and is silent elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stream_gru.columns import Bools, Floats
from stream_gru.evaluation.cases import SuiteCase


class Profile(NamedTuple):
    """What a detection is worth, and what its lack costs."""

    hit: float
    miss: float
    false: float


PROFILES = {
    "standard": Profile(1.0, 1.0, 0.11),
    "low FP": Profile(1.0, 1.0, 0.22),
    "low FN": Profile(1.0, 2.0, 0.11),
}

_PROBATION_SHARE, _PROBATION_ROWS = 0.15, 750  # of a file, but no more rows, that do not count
_REACH_WINDOWS = 3.0  # windows' widths after a window, from which on a detection is as false as any


@dataclass(frozen=True, slots=True)
class Scored:
    """A detector over some files with one threshold."""

    score: float
    threshold: float
    windows: int
    found: int
    false: int  # rows detected outside the windows


def probation(n: int) -> int:
    """How many of `n` rows do not count."""
    return int(np.ceil(min(np.floor(_PROBATION_SHARE * n), _PROBATION_ROWS)))


def evaluate(
    cases: Sequence[SuiteCase], scores: Sequence[Floats], profile: Profile, threshold: float | None = None
) -> Scored:
    """Score rows' `scores` (T,), larger = more anomalous. Without a threshold the best one of all is taken."""
    gains = [_gains(case, score, profile) for case, score in zip(cases, scores, strict=True)]
    score, gain, finds, outside = (np.concatenate(column) for column in zip(*gains, strict=True))
    order = np.argsort(-score, kind="stable")
    # After the k highest rows: what they earn together, the windows found and the rows outside.
    earned, found, false = (np.r_[0.0, np.cumsum(part[order])] for part in (gain, finds, outside))
    cut = np.r_[np.inf, score[order]]
    ends = np.flatnonzero(np.r_[cut[1:] != cut[:-1], True])  # rows of one score are detected together
    # How many rows are detected.
    k = int(ends[np.argmax(earned[ends])] if threshold is None else np.count_nonzero(score >= threshold))
    windows = sum(len(case.windows) for case in cases)
    reachable = sum(last >= probation(len(case)) for case in cases for _, last in case.windows)
    lost = profile.miss * (windows - reachable)  # windows that never count cost nothing
    total = 100 * (float(earned[k]) + lost) / ((profile.hit + profile.miss) * windows) if windows else 0.0
    return Scored(total, float(cut[k]) if threshold is None else threshold, windows, int(found[k]), int(false[k]))


def _gains(case: SuiteCase, score: Floats, profile: Profile) -> tuple[Floats, Floats, Bools, Bools]:
    """For each row that counts: its score; what detecting it adds, all higher ones being detected before; whether it
    is the first find of a window; whether it lies outside."""
    n = len(case)
    worth, outside, finds = _worth(case, profile), np.ones(n, np.bool_), np.zeros(n, np.bool_)
    start = probation(n)
    gain = worth.copy()
    for first, last in case.windows:
        outside[first : last + 1] = False
        rows = np.arange(max(first, start), last + 1)
        if not len(rows):
            continue
        rows = rows[np.argsort(-score[rows], kind="stable")]
        best = np.maximum.accumulate(worth[rows])
        gain[rows] = np.diff(best, prepend=-profile.miss)
        finds[rows[0]] = True
    return score[start:], gain[start:], finds[start:], outside[start:]


def _worth(case: SuiteCase, profile: Profile) -> Floats:
    """(T,) of a detection at each row."""
    worth = np.full(len(case), -profile.false)
    ends = [first for first, _ in case.windows[1:]] + [len(case)] * bool(case.windows)
    for (first, last), following in zip(case.windows, ends, strict=True):
        width = last - first + 1
        inside = np.arange(first, last + 1)
        worth[inside] = profile.hit * _fade((inside - last - 1) / width) / _fade(-1.0)
        after = np.arange(last + 1, following)
        distance = (after - last) / max(width - 1, 1)
        worth[after] = profile.false * np.where(
            distance <= _REACH_WINDOWS, _fade(np.minimum(distance, _REACH_WINDOWS)), -1.0
        )
    return worth


def _fade(position: Floats | float) -> Floats:
    """From near 1 at a window's begin, -1, over 0 at its end, 0, to -1 far after it."""
    return np.asarray(2 / (1 + np.exp(5 * np.asarray(position))) - 1)
