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

_WATCHED = ("near", "far", "drift", "quiet", "noisy")
FIELDS = {"drift": 1, "pace": 1, "typical": len(_WATCHED), "record": len(_WATCHED)}

# A channel counts 1 where it reaches its level: so many times its mean, and never less than its record with a margin.
_DRIFT = 0.1  # rate of the running mean of the far residual
_PACE = 0.15  # rate of the running mean of the pace
_FASTEST = 8.0  # one reading counts no more in it: a spike alone is no burst of noise
_STILL = 1e-3  # pace that counts as none
_MEANS = (6.0, 6.0, 6.0, 3.0, 3.0)
_ADDED = (0.0, 0.0, 0.0, 2.0, 1.0)  # quiet and noisy are logarithms: steps that nobody would notice
_MARGIN = 1.4
_TAIL, _TAIL_FROM, _MARGIN_MOST = 0.14, 4.0, 3.0  # the margin grows with record / mean, more in heavy tails
_YOUNG = 48.0  # levels are (1 + _YOUNG / readings) times as high: a short past has no great records

_TYPICAL = 1 / 3000  # rate of the channels' means
_DECAY = 1 / 13_000  # a record's way back to the mean, a reading
_SETTLED = 16  # readings, before which the channels say nothing
_LEARNING = 64  # readings, from which on a record follows slowly where the channel is smooth or the reading anomalous:
_GROWTH = (0.04, 0.04, 0.02, 0.02, 0.02)  # by this share of itself
_CATCH_UP = (0.02, 0.02, 0.01, 0.01, 0.01)  # or, if that is more, of what it lacks
_SMOOTH = (0.0, 0.0, 1.0, 1.0, 1.0)  # channels that creep up on their record, reading by reading

_POWER = 4  # channels, and features, are combined by this norm: close to the largest, but they add up
_LARGEST = 1e6  # score of one channel
_HUGE = 1e37  # value of one channel


class Detector(NamedTuple):
    """The part of the body that this module keeps."""

    drift: Tensor  # (1, N) running mean of the far residual, without its excess
    pace: Tensor  # (1, N) running mean of |dx| / usual |dx|
    typical: Tensor  # (5, N) running mean of each channel
    record: Tensor  # (5, N) its decaying record


class Evidence(NamedTuple):
    """What is judged of a reading, (1, N) each."""

    near: Tensor  # residual of the forecast made one step before
    far: Tensor  # of the one made a horizon before, which has not yet adapted to a shift
    pace: Tensor  # |dx| / usual |dx|


class Constants(NamedTuple):
    """One number for each channel, (5, 1), on the device."""

    means: Tensor
    added: Tensor
    tail: Tensor
    growth: Tensor
    catch_up: Tensor
    smooth: Tensor

    @classmethod
    def on(cls, device: torch.device | str = "cpu") -> Constants:
        """The constants on `device`."""
        tail = [0.0 if added else _TAIL for added in _ADDED]
        columns = (_MEANS, _ADDED, tail, _GROWTH, _CATCH_UP, _SMOOTH)
        return cls(*(torch.tensor(column, device=device)[:, None] for column in columns))


def score(
    state: Detector, evidence: Evidence, seen: Tensor, floor: Tensor, constant: Constants
) -> tuple[Tensor, Detector]:
    """Score a reading against what was known before it, then learn from it.

    `seen` (1, N) are the readings before, `floor` (1, N) the smallest residual that counts. Returns the score (1, N),
    1 = the threshold, and the new state.
    """
    drift, pace, typical, record = state
    known = seen.clamp(min=1)
    tails = record / (typical + floor) - _TAIL_FROM
    margin = (_MARGIN + constant.tail * tails).clamp(_MARGIN, _MARGIN_MOST)
    level = torch.maximum(typical * constant.means, record * margin) * (1 + _YOUNG / known) + constant.added + floor
    near, far = evidence.near, evidence.far
    most = level[1:2]
    drift = torch.lerp(drift, torch.maximum(torch.minimum(far, most), -most), _DRIFT)
    pace = torch.lerp(pace, evidence.pace.clamp(max=_FASTEST), known.reciprocal().clamp(min=_PACE))
    activity = (pace + _STILL).log()
    channel = torch.cat([near.abs(), far.abs(), drift.abs(), -activity, activity]).clamp(0, _HUGE) * (seen >= _SETTLED)
    total = (channel / level).clamp(max=_LARGEST).pow(_POWER).sum(0, keepdim=True).pow(1 / _POWER)

    anomalous = total > 1
    slowly = (anomalous | (constant.smooth > 0)) & (seen >= _LEARNING)
    lacks = (channel - record).clamp(min=0)
    step = torch.minimum(lacks, torch.maximum(constant.growth * record, constant.catch_up * lacks))
    grown = record + torch.where(slowly, step, lacks)
    usual = torch.where(slowly, torch.minimum(channel, level), channel)
    typical = torch.lerp(typical, usual, known.reciprocal().clamp(min=_TYPICAL))
    return total, Detector(drift, pace, typical, torch.lerp(grown, typical, _DECAY))


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
