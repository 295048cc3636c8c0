"""How anomalous a reading is: pure functions on tensors of N series, feature-major ``(k, N)``.

Each channel watches one quantity that is small while a series behaves. It is compared with its own running mean and
with its slowly decaying record: a reading stands out when it clearly tops what the series has shown before.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHANNELS = 3  # |one-step residual|, |residual at the horizon|, |its running mean|
FIELDS = {"drift": 1, "typical": CHANNELS, "record": CHANNELS}
SHARED = {"alarm": 1}

_DRIFT = 0.1  # rate of the running mean of the far residual
_TYPICAL = 1 / 3000  # rate of the channels' means
_DECAY = 1 / 13_000  # a record's way back to the mean, a reading
_MEANS = 6.0  # a channel at so many times its mean counts 1 ...
_MARGIN = 1.5  # ... but never below so many times its record
_HABIT = 0.25  # share of an anomalous excess that the record takes over
_POWER = 4  # channels, and features, are combined by this norm: close to the largest, but they add up
_TINY = 1e-30


class Detector(NamedTuple):
    """The part of the body that this module keeps."""

    drift: Tensor  # (1, N) running mean of the far residual
    typical: Tensor  # (C, N) running mean of each channel
    record: Tensor  # (C, N) its decaying record


def score(state: Detector, count: Tensor, near: Tensor, far: Tensor, magnitude: Tensor) -> tuple[Tensor, Detector]:
    """Score a reading against what was known before it, then learn from it.

    `near` and `far` (1, N) are the residuals of the forecasts made one step and a horizon before, `count` (1, N) the
    readings seen before, `magnitude` (1, N) |y|. Returns the score (1, N), 1 = the threshold, and the new state.
    """
    drift = torch.lerp(state.drift, far, _DRIFT)
    channel = torch.cat([near, far, drift]).abs()
    level = torch.maximum(state.typical * _MEANS, state.record * _MARGIN) + (magnitude * 1e-12 + _TINY)
    raw = combine(channel / level, 0)
    excess = channel - state.record
    record = state.record + torch.where(raw > 1, excess * _HABIT, excess).clamp(min=0)
    rate = (1 / (count + 1)).clamp(min=_TYPICAL)
    typical = torch.lerp(state.typical, channel, rate)
    return raw, Detector(drift, typical, record - (record - typical).clamp(min=0) * _DECAY)


def combine(scores: Tensor, dim: int) -> Tensor:
    """Several scores -> one, (..., 1, ...)."""
    return scores.clamp(max=1e6).pow(_POWER).sum(dim, keepdim=True).pow(1 / _POWER)


def grade(anomaly_score: Tensor) -> Tensor:
    """0 up to the threshold, then towards 1."""
    return 1 - 1 / anomaly_score.clamp(min=1)
