"""Readings as columns: what the host tells the device of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_gru.columns import DAY_MS, HOUR_MS, WEEK_MS, Floats, Ints

_SMALLEST_FLOOR = 1e-30  # so that nothing is divided by 0; float32 still holds it
_ROUNDING_SHARE = 1e-12  # of |y|: what lies below is rounding of the float64 values themselves
_THURSDAY_MS = 3 * DAY_MS  # into the week: the epoch began on a Thursday, weeks begin on Monday


class Observation(NamedTuple):
    """N readings, (1, N) each."""

    dx: Tensor  # the difference to the last value
    unchanged: Tensor  # 1 where that is 0
    log_gap: Tensor  # half the logarithm of the seconds since the last reading
    cosine: Tensor  # of the time of the day, UTC
    sine: Tensor
    log_size: Tensor  # a tenth of log(1 + |y|)
    log_seen: Tensor  # log(1 + readings seen, this one included)
    y: Tensor  # less the location, where the scaling is fixed
    height: Tensor  # above the base of the row
    week: Tensor  # hours since Monday 0:00, UTC
    floor: Tensor  # the smallest difference that means anything
    rate: Tensor  # 1 / readings seen before, at most 1
    scale: Tensor  # what one is, where that is fixed

    @classmethod
    def of(cls, columns: Tensor) -> Observation:
        """Name the rows of what `observe` gave."""
        return cls(*torch.split(columns, 1))


OBSERVED = len(Observation._fields)
_ROW = {name: i for i, name in enumerate(Observation._fields)}


class Arrival(NamedTuple):
    """N readings and what the host knows of their series, (N,) each."""

    y: Floats
    timestamp: Ints  # epoch ms
    last: Floats  # the value before, NaN: none
    since: Ints  # its time
    seen: Ints  # how many there were
    base: Floats  # the first value, NaN: none


def observe(arrival: Arrival, scaling: tuple[Floats, Floats] | None = None) -> npt.NDArray[np.float32]:
    """Readings -> the rows of an `Observation`, (OBSERVED, N). `scaling`: loc and scale (N,) where they are fixed."""
    y, timestamp, last, since, seen, base = arrival
    first = np.isnan(last)
    dx = np.where(first, 0, y - last)
    gap = timestamp - np.where(first, timestamp - 1000, since)
    week = ((timestamp + _THURSDAY_MS) % WEEK_MS) / HOUR_MS
    angle = week * (2 * np.pi / 24)
    size = np.abs(y)
    loc, scale = (0.0, 0.0) if scaling is None else scaling
    columns = np.empty((OBSERVED, len(y)), np.float32)
    columns[_ROW["dx"]] = dx
    columns[_ROW["unchanged"]] = dx == 0
    columns[_ROW["log_gap"]] = np.log(gap * 1e-3 + 1e-3) * 0.5
    columns[_ROW["cosine"]] = np.cos(angle)
    columns[_ROW["sine"]] = np.sin(angle)
    columns[_ROW["log_size"]] = np.log1p(size) * 0.1
    columns[_ROW["log_seen"]] = np.log1p(seen + 1)
    columns[_ROW["y"]] = y - loc
    columns[_ROW["height"]] = np.where(np.isnan(base), 0, y - base)
    columns[_ROW["week"]] = week
    columns[_ROW["floor"]] = size * _ROUNDING_SHARE + _SMALLEST_FLOOR
    columns[_ROW["rate"]] = 1 / np.maximum(seen, 1)
    columns[_ROW["scale"]] = scale
    return columns


def imputed(columns: Tensor, where: Tensor, move: Tensor) -> Tensor:
    """Observations (OBSERVED, N) with the value moved by `move` (1, N) from the last one `where` (1, N) it is missing.

    The host gave them the last value itself.
    """
    columns = columns.clone()
    move = torch.where(where, move, columns[_ROW["dx"]])
    columns[_ROW["y"]] += torch.where(where, move, 0)[0]
    columns[_ROW["height"]] += torch.where(where, move, 0)[0]
    columns[_ROW["dx"]] = move[0]
    columns[_ROW["unchanged"]] = move[0] == 0
    return columns
