"""How anomalous a reading is.

`score` is a pure function on tensors of N series, feature-major ``(k, N)``: each channel watches one quantity that is
small while a series behaves, and compares it with its running mean and its slowly decaying record. A reading stands out
when it clearly tops what the series has shown before. `judge` makes one verdict of the features of each reading.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stream_gru.batch import Bools, Floats

CHANNELS = 3  # |one-step residual|, |residual at the horizon|, |its running mean|
FIELDS = {"drift": 1, "typical": CHANNELS, "record": CHANNELS}

_DRIFT = 0.1  # rate of the running mean of the far residual
_TYPICAL = 1 / 3000  # rate of the channels' means
_DECAY = 1 / 13_000  # a record's way back to the mean, a reading
_MEANS = 6.0  # a channel at so many times its mean counts 1 ...
_MARGIN = 1.5  # ... but never below so many times its record
_HABIT = 0.25  # share of an anomalous excess that the record takes over
_POWER = 4  # channels, and features, are combined by this norm: close to the largest, but they add up
_LARGEST = 1e6


class Detector(NamedTuple):
    """The part of the body that this module keeps."""

    drift: Tensor  # (1, N) running mean of the far residual
    typical: Tensor  # (C, N) running mean of each channel
    record: Tensor  # (C, N) its decaying record


def score(state: Detector, seen: Tensor, near: Tensor, far: Tensor, floor: Tensor) -> tuple[Tensor, Detector]:
    """Score a reading against what was known before it, then learn from it.

    `near` and `far` (1, N) are the residuals of the forecasts made one step and a horizon before, `seen` (1, N) the
    readings before, `floor` (1, N) the smallest residual that counts. Returns the score (1, N), 1 = the threshold, and
    the new state.
    """
    drift = torch.lerp(state.drift, far, _DRIFT)
    channel = torch.cat([near, far, drift]).abs()
    level = torch.maximum(state.typical * _MEANS, state.record * _MARGIN) + floor
    total = (channel / level).clamp(max=_LARGEST).pow(_POWER).sum(0, keepdim=True).pow(1 / _POWER)
    excess = (channel - state.record).clamp(min=0)
    record = state.record + torch.where(total > 1, excess * _HABIT, excess)
    typical = torch.lerp(state.typical, channel, (seen + 1).reciprocal().clamp(min=_TYPICAL))
    return total, Detector(drift, typical, torch.lerp(record, typical, _DECAY))


class Verdict(NamedTuple):
    """One for each of B readings."""

    score: Floats
    grade: Floats
    is_anomaly: Bools
    alert_score: Floats
    alert: Bools
    closes: Bools
    alarm: Floats  # what the head of the row remembers of it


def judge(scores: Floats, alarm: Floats, threshold: float) -> Verdict:
    """Scores of the features (B, F), 0 where a feature is missing or young -> the verdict on each reading.

    `alarm` (B,) is what the row remembers: above 0 while the series is anomalous.
    """
    total = ((scores / threshold) ** _POWER).sum(1) ** (1 / _POWER)
    flag, before = total > 1, alarm > 0
    alert = flag & ~before
    return Verdict(
        total,
        1 - 1 / np.maximum(total, 1),
        flag,
        np.where(alert, total, 0),
        alert,
        ~flag & before,
        flag.astype(np.float64),
    )
