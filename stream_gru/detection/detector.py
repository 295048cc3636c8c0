"""How anomalous a reading is: channels that each watch one quantity of a feature, and what they make of it.

`score` is a pure function on tensors of N series, feature-major ``(k, N)``. Each channel keeps the usual value of its
quantity and the record, which decays slowly. Two things are said of a reading:

- surprise, what alerts are made of: by how much the channels come above their records. A reading sets a record once, so
  that a surprise is over as soon as it was seen.
- deviation, how the series is now: how far the smoothed level and activity are from the usual ones, in mean absolute
  deviations. It stays up until the series is back, or what is usual has followed.

Residuals are those of the forecast made a horizon before: the one made a step before has already adapted to an anomaly
that lasts. Spans are in readings. Levels are kept relative to the last value (see `row`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_gru.columns import Ints

Direction = Literal["both", "above", "below"]

# Exponential averages and their spans; the first three are levels, of which only the deviation looks at the first.
_SPANS = {
    **{"level 5": 5, "level 20": 20, "level 60": 60},
    **{"drift 20": 20, "drift 60": 60},  # of the residual
    **{"error 20": 20, "error 60": 60},  # of its size
    **{"excess 15": 15, "excess 60": 60},  # of how often that is above its usual limit
    **{"activity": 60, "error": 3000},  # of |dx|; of the size of the residual, for the steps of the limit
}
_LEVELS, _DRIFTS, _RATES = slice(0, 3), slice(3, 5), slice(5, 9)
_ACTIVITY, _ERROR = slice(9, 10), slice(10, 11)
# The channels: sizes of the residual, drifts up and down, levels up and down, activity and stillness.
_SIZES, _UP, _DOWN, _HIGH, _LOW, _ACTIVE = 5, 2, 2, 3, 3, 2
CHANNELS = _SIZES + _UP + _DOWN + _HIGH + _LOW + _ACTIVE
_VALUE = slice(_SIZES + _UP + _DOWN, _SIZES + _UP + _DOWN + 1)  # the channel of the value itself
_WATCHED = 4  # whose deviation counts: the quick and the slow level, activity, stillness

FIELDS = {
    **{"smoothed": len(_SPANS), "limit": 1, "usual": CHANNELS, "record": CHANNELS, "deviation": _WATCHED},
}

_USUAL, _DECAY, _DEVIATION = 1 / 3000, 1 / 13_000, 1 / 13_000  # rates of what is usual, the record's way back, spread
_NEAR = 0.97  # of the record: where a surprise begins
_HALF = 0.3  # margin from which on more of it counts less and less
_YOUNG = 300.0  # readings after which a margin counts half: the records of a short past are soon broken
_STILL = 4.0  # mean deviations: the bar of stillness, which comes reading by reading and would set no record
_SILENT = 0.03  # of the usual activity: stiller than that is as still
_FIRST = 5  # readings, before which the last one is all that is usual
_QUANTILE = 0.97  # of the residual's size: the limit that it seldom exceeds
_STEP = 0.004  # in mean errors: how the limit moves at a reading
_UNIT = 1e-6  # the smallest range of a quantity without a unit
_MOST, _FARTHEST = 1e6, 10.0  # a margin, and a deviation, count no more
POWER = 4  # deviations, and features, are combined by this norm: close to the largest, but they add up


class Detector(NamedTuple):
    """The part of the body that this module keeps."""

    smoothed: Tensor  # (11, N) averages, see `_SPANS`
    limit: Tensor  # (1, N) the residual's size is seldom above
    usual: Tensor  # (C, N) running mean of each channel
    record: Tensor  # (C, N) its decaying record
    deviation: Tensor  # (4, N) running mean of how far the watched ones are from their mean


class Constants(NamedTuple):
    """Small tensors that `score` needs, on the device, (k, 1)."""

    rates: Tensor  # of the averages
    shift: Tensor  # -1 where a channel is a level, 1 where it is one upside down
    weight: Tensor  # 1, or 0 for a channel that looks the other way
    units: Tensor  # 1 for channels in units of the series, else 0
    up: Tensor  # (1, 1) factors whose larger product with a residual is its size, on the side that is looked at
    down: Tensor
    over: Tensor  # the same for the channels that are watched
    under: Tensor
    watched: Tensor  # (3,) which channels these are, all but the quick level

    @classmethod
    def on(cls, device: torch.device | str = "cpu", direction: Direction = "both") -> Constants:
        """The constants on `device`, for anomalies in `direction`."""
        up, down, both = (float(direction in ("both", way)) for way in ("above", "below", "both"))
        counts = (_SIZES, _UP, _DOWN, _HIGH, _LOW, 1, 1)
        active = CHANNELS - _ACTIVE
        slow = active - _LOW - 1
        columns = (
            [1 / span for span in _SPANS.values()],
            _repeat(counts, (0, 0, 0, -1, 1, 0, 0)),
            _repeat(counts, (1, up, down, up, down, both, both)),
            _repeat((3, 2, *counts[1:]), (1, 0, 1, 1, 1, 1, 1, 0)),
            *([up], [-down], [up, up, both, both], [-down, -down, 0, 0]),
        )
        tensors = [torch.tensor(column, dtype=torch.float32, device=device)[:, None] for column in columns]
        tensors.append(torch.tensor([slow, active, active + 1], device=device))
        return cls(*tensors)


class Youth(NamedTuple):
    """What the number of readings seen before means for the detector, (1, N) each."""

    rate: Tensor  # of averages, at least
    trust: Tensor  # what margins are multiplied by
    step: Tensor  # of the limit
    begins: Tensor  # 1 for the first readings, else 0


def youth(seen: Ints) -> npt.NDArray[np.float32]:
    """The columns of `Youth`, (4, N), on the host."""
    columns = np.empty((len(Youth._fields), len(seen)), np.float32)
    columns[0] = 1 / (seen + 1)
    columns[1] = seen / (seen + _YOUNG)
    columns[2] = np.maximum(_STEP, 3 / (seen + 3))
    columns[3] = seen < _FIRST
    return columns


class Evidence(NamedTuple):
    """What is judged of a reading, (1, N) each."""

    residual: Tensor  # of the forecast made a horizon before
    dx: Tensor  # the difference to the last value
    floor: Tensor  # the smallest difference that counts


def score(state: Detector, evidence: Evidence, age: Youth, constant: Constants) -> tuple[Tensor, Detector]:
    """Score a reading against what was known before it, then learn from it.

    Returns surprise and deviation, (2, N), both 0 while nothing is unusual, and the new state.
    """
    _, _, usual, record, deviation = state
    channel, smoothed, limit = _channels(state, evidence, age, constant)
    usual, record = (torch.addcmul(kept, evidence.dx, constant.shift) for kept in (usual, record))
    away = channel - usual
    floor = torch.addcmul(_UNIT * (1 - constant.units), evidence.floor, constant.units)
    bar = torch.cat([record[:-1], torch.add(usual[-1:], deviation[-1:], alpha=_STILL)])
    margin = (away / (bar - usual + floor) - _NEAR).clamp(0, _MOST) * age.trust
    surprise = ((margin / _HALF).log1p() * (_HALF * constant.weight)).sum(0, keepdim=True)

    quick = smoothed[:1] - usual[_VALUE]
    far = torch.cat([quick, away.index_select(0, constant.watched)])
    least = deviation + torch.cat([evidence.floor, floor.index_select(0, constant.watched)])
    ratio = torch.maximum(far * constant.over, far * constant.under) / least
    total = torch.linalg.vector_norm(ratio.clamp(max=_FARTHEST), POWER, 0, keepdim=True)

    record = torch.where(age.begins > 0, channel, torch.maximum(record, channel))
    usual = usual + away * torch.maximum(age.rate, age.begins).clamp(min=_USUAL)
    deviation = torch.lerp(deviation, far.abs(), age.rate.clamp(min=_DEVIATION))
    learned = Detector(smoothed, limit, usual, torch.lerp(record, usual, _DECAY), deviation)
    return torch.cat([surprise, total]), learned


def _channels(state: Detector, evidence: Evidence, age: Youth, constant: Constants) -> tuple[Tensor, Tensor, Tensor]:
    """What the channels (C, N) see, and the new averages and limit."""
    smoothed, limit = state.smoothed, state.limit
    residual, dx, floor = evidence
    size = torch.maximum(residual * constant.up, residual * constant.down)
    # From 0 at 3/4 of the limit to 1 at 5/4: a step would turn a rounding into an event.
    above = ((size / (limit + floor) - 0.75) * 2).clamp(0, 1)
    still = torch.zeros_like(dx)
    before = torch.cat([smoothed[_LEVELS] - dx, smoothed[_DRIFTS.start :]])
    target = torch.cat([still, still, still, residual, residual, size, size, above, above, dx.abs(), size])
    smoothed = torch.lerp(before, target, torch.maximum(constant.rates, age.rate))
    limit = torch.addcmul(limit, (above - (1 - _QUANTILE)) * age.step, smoothed[_ERROR])
    drifts, levels, activity = smoothed[_DRIFTS], torch.cat([still, smoothed[1 : _LEVELS.stop]]), smoothed[_ACTIVITY]
    sizes = torch.cat([size, smoothed[_RATES]])
    least = torch.add(floor, state.usual[-_ACTIVE : 1 - _ACTIVE], alpha=_SILENT)
    stillness = -(activity + least).log()
    channel = torch.cat([sizes, drifts, -drifts, levels, -levels, activity, stillness])
    return channel, smoothed, limit


def _repeat(counts: tuple[int, ...], values: tuple[float, ...]) -> list[float]:
    return [value for count, value in zip(counts, values, strict=True) for _ in range(count)]
