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

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_gru.columns import Ints, notes
from stream_gru.detection.channels import AVERAGES, CHANNELS, DEVIATIONS, LEVELS, Direction, average, channel, counts

# These go back to a search on 38 series of NAB, with a detector of this kind; there 0.7 or 1.3 times any of them moved
# the score on all 58 series by less than 3 points of 100.
_USUAL_RATE = 1 / 3000  # a reading, of the running mean that is called usual
_RECORD_RATE = 1 / 13_000  # a reading, of the record's way back to what is usual
_NEAR_RECORD = 0.97  # share of the way from usual to the record, from which on a reading is a surprise
_LINEAR_MARGIN = 0.3  # up to about this margin surprise grows with it, then with its logarithm
_FIRST_READINGS = 5  # before which the last reading is all that is usual
_LIMIT_QUANTILE = 0.97  # of the sizes of residuals: the limit that is seldom exceeded
_LIMIT_STEP = 0.004  # in mean errors: how far the limit moves at a reading, at least
_LIMIT_FIRST_STEPS = 3  # the n-th reading moves it by 3 / (n + 3) mean errors, while that is more
# These were set by hand.
_TRUST_READINGS = 300.0  # seen, at which margins count half: the records of a short past are soon broken
_DEVIATION_RATE = 1 / 13_000  # a reading, of the mean deviation: as slow as the record
# Excess is 0 up to 3/4 of the limit and 1 from 5/4 on: with a step a rounding error would be an event.
_EXCESS_FROM, _EXCESS_SLOPE = 0.75, 2
_STILLNESS_BAR = 4.0  # mean deviations, instead of a record: stillness grows reading by reading and would break none
_SILENT = 0.03  # share of the usual activity: a series that is stiller counts as just so still
_UNITLESS_FLOOR = 1e-6  # the smallest range of a channel without a unit: below it is rounding of float32
_MARGIN_MOST = 1e6  # a larger margin counts as this: far beyond any real one, and float32 stays finite
_DEVIATION_MOST = 10.0  # mean deviations: beyond that each watched deviation counts as this
POWER = 4  # of the norm that combines deviations, and features: close to the largest, but several add up

_QUICK, _QUICK_USUAL = average(DEVIATIONS[0].average), channel(DEVIATIONS[0].channel)
_ERROR, _ACTIVITY, _ACTIVE = average("error"), average("activity"), channel("activity")


@dataclass(frozen=True)
class Width:
    """A note on a part of the row."""

    floats: int  # that it takes of each feature


class DetectorState(NamedTuple):
    """The part of the body that this module keeps."""

    smoothed: Annotated[Tensor, Width(len(AVERAGES))]  # (A, N) the averages
    limit: Annotated[Tensor, Width(1)]  # (1, N) the size of a residual is seldom above
    usual: Annotated[Tensor, Width(len(CHANNELS))]  # (C, N) running mean of each channel
    record: Annotated[Tensor, Width(len(CHANNELS))]  # (C, N) its decaying record
    deviation: Annotated[Tensor, Width(len(DEVIATIONS))]  # (D, N) running mean of the distances to what is usual


FIELDS = {name: note.floats for name, note in notes(DetectorState, Width).items()}
"""Fields of the row's body -> how many floats of each feature."""


class Constants(NamedTuple):
    """Small tensors that `score` needs, on the device, (k, 1)."""

    rates: Tensor  # of the averages
    shift: Tensor  # of the channels: -1 where one is a level, 1 where it is one upside down, else 0
    weight: Tensor  # 1, or 0 for a channel that looks the other way
    units: Tensor  # 1 for channels in units of the series, else 0
    up: Tensor  # (1, 1) factors whose larger product with a residual is its size, on the side that is looked at
    down: Tensor
    over: Tensor  # the same for the deviations
    under: Tensor
    watched: Tensor  # (D - 1,) the channels whose deviations these are, of all but the quick level

    @classmethod
    def on(cls, device: torch.device | str = "cpu", direction: Direction = "both") -> Constants:
        """The constants on `device`, for anomalies in `direction`."""
        up, down, both = (float(direction in ("both", way)) for way in ("above", "below", "both"))
        columns = (
            [1 / row.span for row in AVERAGES],
            [row.level * (1.0 if row.falls else -1.0) for row in CHANNELS],
            [float(counts(row, direction)) for row in CHANNELS],
            [float(not row.unitless) for row in CHANNELS],
            *([up], [-down]),
            [up if row.both_ways else both for row in DEVIATIONS],
            [-down if row.both_ways else 0.0 for row in DEVIATIONS],
        )
        tensors = [torch.tensor(column, dtype=torch.float32, device=device)[:, None] for column in columns]
        watched = [channel(row.channel).start for row in DEVIATIONS if not row.average]
        tensors.append(torch.tensor(watched, device=device))
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
    columns[1] = seen / (seen + _TRUST_READINGS)
    columns[2] = np.maximum(_LIMIT_STEP, _LIMIT_FIRST_STEPS / (seen + _LIMIT_FIRST_STEPS))
    columns[3] = seen < _FIRST_READINGS
    return columns


class Evidence(NamedTuple):
    """What is judged of a reading, (1, N) each."""

    residual: Tensor  # of the forecast made a horizon before
    dx: Tensor  # the difference to the last value
    floor: Tensor  # the smallest difference that counts


def score(state: DetectorState, evidence: Evidence, age: Youth, constant: Constants) -> tuple[Tensor, DetectorState]:
    """Score a reading against what was known before it, then learn from it.

    Returns surprise and deviation, (2, N), both 0 while nothing is unusual, and the new state.
    """
    _, _, usual, record, deviation = state
    seen, smoothed, limit = _channels(state, evidence, age, constant)
    usual, record = (torch.addcmul(kept, evidence.dx, constant.shift) for kept in (usual, record))
    away = seen - usual
    floor = torch.addcmul(_UNITLESS_FLOOR * (1 - constant.units), evidence.floor, constant.units)
    bar = torch.cat([record[:-1], torch.add(usual[-1:], deviation[-1:], alpha=_STILLNESS_BAR)])
    margin = (away / (bar - usual + floor) - _NEAR_RECORD).clamp(0, _MARGIN_MOST) * age.trust
    surprise = ((margin / _LINEAR_MARGIN).log1p() * (_LINEAR_MARGIN * constant.weight)).sum(0, keepdim=True)

    quick = smoothed[_QUICK] - usual[_QUICK_USUAL]
    far = torch.cat([quick, away.index_select(0, constant.watched)])
    least = deviation + torch.cat([evidence.floor, floor.index_select(0, constant.watched)])
    ratio = torch.maximum(far * constant.over, far * constant.under) / least
    total = torch.linalg.vector_norm(ratio.clamp(max=_DEVIATION_MOST), POWER, 0, keepdim=True)

    record = torch.where(age.begins > 0, seen, torch.maximum(record, seen))
    usual = usual + away * torch.maximum(age.rate, age.begins).clamp(min=_USUAL_RATE)
    deviation = torch.lerp(deviation, far.abs(), age.rate.clamp(min=_DEVIATION_RATE))
    learned = DetectorState(smoothed, limit, usual, torch.lerp(record, usual, _RECORD_RATE), deviation)
    return torch.cat([surprise, total]), learned


def _channels(
    state: DetectorState, evidence: Evidence, age: Youth, constant: Constants
) -> tuple[Tensor, Tensor, Tensor]:
    """What the channels (C, N) see, and the new averages and limit."""
    smoothed, limit = state.smoothed, state.limit
    residual, dx, floor = evidence
    size = torch.maximum(residual * constant.up, residual * constant.down)
    excess = ((size / (limit + floor) - _EXCESS_FROM) * _EXCESS_SLOPE).clamp(0, 1)
    value = torch.zeros_like(dx)  # levels are relative to it
    now = {"value": value, "residual": residual, "size": size, "excess": excess, "change": dx.abs()}
    before = torch.cat([smoothed[:LEVELS] - dx, smoothed[LEVELS:]])
    target = torch.cat([now[row.of] for row in AVERAGES])
    smoothed = torch.lerp(before, target, torch.maximum(constant.rates, age.rate))
    limit = torch.addcmul(limit, (excess - (1 - _LIMIT_QUANTILE)) * age.step, smoothed[_ERROR])
    least = torch.add(floor, state.usual[_ACTIVE], alpha=_SILENT)
    stillness = -(smoothed[_ACTIVITY] + least).log()
    averages = dict(zip((row.name for row in AVERAGES), torch.split(smoothed, 1), strict=True))
    of = {"value": value, "size": size, "stillness": stillness, **averages}
    return torch.cat([-of[row.of] if row.falls else of[row.of] for row in CHANNELS]), smoothed, limit
