"""What the row knows of a series' past, and what the cell sees of it. Nothing here has weights or needs a gradient.

`observe` turns N readings into columns on the host; the rest are pure functions on tensors of N series, feature-major
``(k, N)``. Levels are kept relative to the last value (see `row`), so that moving on by dx shifts them by -dx. Averages
start as plain means: ``m += max(1 / n, rate) (target - m)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_gru.batch import Floats, Ints

LEVELS = (0.005, 0.05, 0.2, 0.5)  # rates of the smoothers
TRENDS = (1.0, 0.15, 0.03)  # rates of the mean difference; the first is the last difference itself
ANCHORS = 1 + len(LEVELS) + len(TRENDS)  # cheap forecasts: the last value, each level, the last value + each trend
_MOVES = len(LEVELS) + len(TRENDS)
_SIZES = ANCHORS + 3
_RATES = (
    *(*LEVELS, *TRENDS),
    *((0.04,) * ANCHORS),  # mean absolute error of each anchor
    *(0.15, 0.005, 0.01),  # sizes: mean |dx| fast, mean |x - slowest level|, mean |dx| slow
    *(0.05, 0.05),  # habits: share of unchanged readings, mean log gap
)
_LAGS = 2  # differences before the last one

FIELDS = {"lags": _LAGS, "averages": len(_RATES)}
INPUTS = (_MOVES + _LAGS + 1) + (_SIZES - 1) + 2 + 5

_LIMIT = 8.0  # of every input
_TINY = 1e-30  # the smallest size of anything
_NOISE = 1e-12  # of |y|: what lies below is rounding of the float64 values themselves
_DAY_MS = 86_400_000

# rows of an observation
_MOVED = slice(0, _MOVES)  # targets of levels and trends: 0 (the new value itself), dx
_DX = slice(len(LEVELS), len(LEVELS) + 1)
_HABITS = slice(_MOVES, _MOVES + 2)  # unchanged, log gap
_CONTEXT = slice(_MOVES + 1, _MOVES + 6)  # log gap, hour cosine and sine, log |y|, log of the readings seen
_Y = slice(_MOVES + 6, _MOVES + 7)
_FLOOR = slice(_MOVES + 7, _MOVES + 8)
_RATE = slice(_MOVES + 8, _MOVES + 9)
_SCALE = slice(_MOVES + 9, _MOVES + 10)
OBSERVED = _MOVES + 10


class Features(NamedTuple):
    """The part of the body that this module keeps."""

    lags: Tensor  # (2, N) the differences before the last one, newest first
    averages: Tensor  # (20, N) levels, trends, errors, sizes, habits; rates in `_RATES`


class Observation(NamedTuple):
    """N readings, (1, N) each but `columns`."""

    columns: Tensor  # (OBSERVED, N)
    dx: Tensor  # the difference to the last value
    floor: Tensor  # the smallest difference that means anything
    rate: Tensor  # 1 / readings seen before, at most 1
    scale: Tensor  # what one is, where that is fixed

    @classmethod
    def of(cls, columns: Tensor) -> Observation:
        """Name the parts of what `observe` gave."""
        return cls(columns, columns[_DX], columns[_FLOOR], columns[_RATE], columns[_SCALE])


class Arrival(NamedTuple):
    """N readings and what the host knows of their series, (N,) each."""

    y: Floats
    timestamp: Ints  # epoch ms
    last: Floats  # the value before, NaN: none
    since: Ints  # its time
    seen: Ints  # how many there were


def observe(arrival: Arrival, scaling: tuple[Floats, Floats] | None = None) -> npt.NDArray[np.float32]:
    """Readings -> columns (OBSERVED, N). `scaling` are loc and scale (N,) where they are fixed."""
    y, timestamp, last, since, seen = arrival
    first = np.isnan(last)
    dx = np.where(first, 0, y - last)
    gap = timestamp - np.where(first, timestamp - 1000, since)
    angle = (timestamp % _DAY_MS) * (2 * np.pi / _DAY_MS)
    size = np.abs(y)
    columns = np.zeros((OBSERVED, len(y)), np.float32)
    columns[len(LEVELS) : _MOVES] = dx
    columns[_MOVES] = dx == 0
    columns[_MOVES + 1] = np.log(gap * 1e-3 + 1e-3) * 0.5
    columns[_MOVES + 2] = np.cos(angle)
    columns[_MOVES + 3] = np.sin(angle)
    columns[_MOVES + 4] = np.log1p(size) * 0.1
    columns[_MOVES + 5] = np.log1p(seen + 1)
    columns[_Y] = y
    if scaling is not None:
        columns[_Y] = y - scaling[0]
        columns[_SCALE] = scaling[1]
    columns[_FLOOR] = size * _NOISE + _TINY
    columns[_RATE] = 1 / np.maximum(seen, 1)
    return columns


class Constants(NamedTuple):
    """Small tensors that the functions need, on their device."""

    rates: Tensor  # (20, 1)
    shift: Tensor  # (20, 1) -1 where an average is a level, else 0

    @classmethod
    def on(cls, device: torch.device | str = "cpu") -> Constants:
        """The constants on `device`."""
        shift = torch.tensor([-1.0] * len(LEVELS) + [0.0] * (len(_RATES) - len(LEVELS)), device=device)
        return cls(torch.tensor(_RATES, device=device)[:, None], shift[:, None])


def update(state: Features, observed: Observation, constant: Constants) -> Features:
    """Take in a reading of each series."""
    lags, averages = state
    dx = observed.dx
    averages = torch.addcmul(averages, dx, constant.shift)
    levels, trends = averages[: len(LEVELS)], averages[len(LEVELS) : _MOVES]
    misses = torch.cat([dx, levels, trends - dx, dx, levels[:1], dx]).abs()  # of the anchors, and the three sizes
    target = torch.cat([observed.columns[_MOVED], misses, observed.columns[_HABITS]])
    rates = torch.maximum(constant.rates, observed.rate)
    return Features(torch.cat([trends[:1], lags[:1]]), torch.lerp(averages, target, rates))


def imputed(columns: Tensor, where: Tensor, move: Tensor) -> Tensor:
    """Observations (OBSERVED, N) with the value moved by `move` (1, N) from the last one `where` (1, N) it is missing.

    The host gave them the last value itself.
    """
    columns = columns.clone()
    move = torch.where(where, move, columns[_DX])
    columns[_Y] += torch.where(where, move, 0)
    columns[len(LEVELS) : _MOVES] = move
    columns[_MOVES] = move[0] == 0
    return columns


def inputs(state: Features, observed: Observation, fixed: bool = False) -> tuple[Tensor, Tensor]:
    """What the cell sees of an updated state, (INPUTS, N), and the unit of the forecast, (1, N).

    Everything is relative to the running mean difference, or to the `fixed` scale; the unit is the running error of the
    best anchor, or that scale.
    """
    lags, averages = state
    sizes = averages[_MOVES : _MOVES + _SIZES] + observed.floor
    logs = sizes.log()
    one = observed.scale if fixed else sizes[-1:]
    ratios = torch.cat([averages[:_MOVES], lags, observed.columns[_Y]]) / one
    x = torch.cat(
        [
            torch.copysign(ratios.abs().log1p(), ratios),
            logs[:-1] - (one.log() if fixed else logs[-1:]),
            averages[_MOVES + _SIZES :],
            observed.columns[_CONTEXT],
        ]
    )
    return x.clamp(-_LIMIT, _LIMIT), one if fixed else sizes[:ANCHORS].amin(0, keepdim=True)


def moves(state: Features) -> Tensor:
    """The anchors but the first (the last value itself), relative to the last value, (ANCHORS - 1, N)."""
    return state.averages[:_MOVES]


def pace(state: Features, observed: Observation) -> Tensor:
    """How far the new reading lies from the last one, against what is usual for the series, (1, N)."""
    return observed.dx.abs() / (state.averages[-3:-2] + observed.floor)
