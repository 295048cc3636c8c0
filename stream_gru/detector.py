"""How anomalous a reading is.

`score` is a pure function on tensors of N series, feature-major ``(k, N)``: each channel watches one quantity that is
small while a series behaves, and compares it with its running mean and its slowly decaying record. A reading stands out
when it clearly tops what the series has shown before. `judge` makes one verdict of the features of each reading.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_gru.batch import Bools, Floats, Ints

_WATCHED = ("near", "far", "drift", "quiet", "noisy")
FIELDS = {"drift": 1, "pace": 1, "typical": len(_WATCHED), "record": len(_WATCHED)}

# A channel counts 1 where it reaches its level: so many times its mean, and never less than its record with a margin.
_DRIFT = 0.1  # rate of the running mean of the far residual
_PACE = 0.15  # rate of the running mean of the pace
_FASTEST = 8.0  # one reading counts no more in it: a spike alone is no burst of noise
_CREEP = 0.2  # of the far channel's level: what a forecast at the horizon may move by at one reading
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
_GROWTH = (0.03, 0.03, 0.014, 0.014, 0.014)  # by this share of itself
_CATCH_UP = (0.016, 0.016, 0.005, 0.005, 0.005)  # and of what it lacks
_SMOOTH = (1.0, 1.0, -1.0, -1.0, -1.0)  # -1: channels that creep up on their record, reading by reading
_UP, _DOWN = (1.0, 1.0, 1.0, -1.0, 1.0), (-1.0, -1.0, -1.0, 0.0, 0.0)  # of residuals the size, of activity one side

_POWER = 4  # channels, and features, are combined by this norm: close to the largest, but they add up
_LARGEST = 1e6  # score of one channel


class Detector(NamedTuple):
    """The part of the body that this module keeps."""

    drift: Tensor  # (1, N) running mean of the far residual, without its excess
    pace: Tensor  # (1, N) running mean of |dx| / usual |dx|
    typical: Tensor  # (5, N) running mean of each channel
    record: Tensor  # (5, N) its decaying record


class Constants(NamedTuple):
    """One number for each channel, (5, 1), on the device."""

    means: Tensor
    added: Tensor
    margin: Tensor  # where record / mean is 0
    tail: Tensor  # what the margin grows by with record / mean
    growth: Tensor
    catch_up: Tensor
    smooth: Tensor  # -1, and 1 for the channels that are not
    up: Tensor  # factors whose larger product with the signed channel is the channel
    down: Tensor

    @classmethod
    def on(cls, device: torch.device | str = "cpu") -> Constants:
        """The constants on `device`."""
        tail = [0.0 if added else _TAIL for added in _ADDED]
        margin = [_MARGIN - grows * _TAIL_FROM for grows in tail]
        columns = (_MEANS, _ADDED, margin, tail, _GROWTH, _CATCH_UP, _SMOOTH, _UP, _DOWN)
        return cls(*(torch.tensor(column, device=device)[:, None] for column in columns))


class Youth(NamedTuple):
    """What the number of readings seen before means for the detector, (1, N) each."""

    level: Tensor  # what levels are multiplied by
    pace: Tensor  # rates
    typical: Tensor
    settled: Tensor  # 1, and 0 while the channels say nothing
    learning: Tensor  # 0, and inf while records take everything in


def youth(seen: Ints) -> npt.NDArray[np.float32]:
    """The columns of `Youth`, (5, N), on the host."""
    rate = 1 / np.maximum(seen, 1)
    columns = np.empty((len(Youth._fields), len(seen)), np.float32)
    columns[0] = 1 + _YOUNG * rate
    columns[1] = np.maximum(rate, _PACE)
    columns[2] = np.maximum(rate, _TYPICAL)
    columns[3] = seen >= _SETTLED
    columns[4] = np.where(seen >= _LEARNING, 0, np.inf)
    return columns


class Evidence(NamedTuple):
    """What is judged of a reading."""

    residuals: Tensor  # (2, N) of the forecasts made a step before, and a horizon before: it knew nothing of a shift
    step: Tensor  # (1, N) |dx| / usual |dx|
    floor: Tensor  # (1, N) the smallest residual that counts


def score(state: Detector, evidence: Evidence, age: Youth, constant: Constants) -> tuple[Tensor, Tensor, Detector]:
    """Score a reading against what was known before it, then learn from it.

    Returns the score (1, N), 1 = the threshold; how far the forecast at the horizon may move at this reading, (1, N),
    so that a spike does not come back as a residual when its own forecast is due; and the new state.
    """
    residuals, step, floor = evidence
    drift, pace, typical, record = state
    margin = torch.addcmul(constant.margin, constant.tail, record / (typical + floor)).clamp(_MARGIN, _MARGIN_MOST)
    level = torch.maximum(typical * constant.means, record * margin)
    level = torch.addcmul(constant.added + floor, level, age.level)
    most = level[1:2]
    drift = torch.lerp(drift, residuals[1:].clamp(-most, most), _DRIFT)
    pace = torch.lerp(pace, step.clamp(max=_FASTEST), age.pace)
    activity = (pace + _STILL).log()
    signed = torch.cat([residuals, drift, activity, activity]) * age.settled
    channel = torch.maximum(signed * constant.up, signed * constant.down)
    total = torch.linalg.vector_norm((channel / level).clamp(max=_LARGEST), _POWER, 0, keepdim=True)

    lacks = (channel - record).clamp(min=0)
    slowly = torch.minimum(lacks, torch.addcmul(constant.growth * record, constant.catch_up, lacks))
    grown = record + torch.where(total > constant.smooth + age.learning, slowly, lacks)
    typical = torch.lerp(typical, torch.minimum(channel, level), age.typical)
    return total, most * _CREEP + age.learning, Detector(drift, pace, typical, torch.lerp(grown, typical, _DECAY))


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
    total = scores[:, 0] if scores.shape[1] == 1 else np.linalg.norm(scores, _POWER, axis=1)
    total = total / threshold
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
