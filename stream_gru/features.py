"""What the row knows of a series' past: pure functions on tensors of N series, feature-major ``(k, N)``.

All levels are relative to the last value (see `row`), so that moving on by `dx` shifts them by ``-dx``. An average with
rate r starts as a plain mean: ``m += max(1 / n, r) (target - m)``. Nothing here has weights or needs a gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = (0.005, 0.05, 0.2, 0.5)  # rates of the smoothers
TRENDS = (1.0, 0.15, 0.03)  # rates of the mean difference; the first is the last difference itself
ANCHORS = 1 + len(LEVELS) + len(TRENDS)  # forecasts that cost nothing: the last value, each level, each trend
ERROR = 0.04  # rate of the anchors' running absolute errors
SCALES = (0.01, 0.15, 0.005)  # |dx| slow and fast, |x - slowest level|
HABITS = (0.05, 0.05)  # share of unchanged readings, log seconds between readings
LAGS = 2  # differences before the last one

_RATES = (*TRENDS, *(ERROR,) * ANCHORS, *SCALES, *HABITS)
FIELDS = {"seen": 1, "levels": len(LEVELS), "lags": LAGS, "averages": len(_RATES)}
INPUTS = (len(LEVELS) + len(TRENDS) + LAGS + 1) + (ANCHORS + 2) + 7

_LIMIT = 8.0  # of every input
_TINY = 1e-30  # smallest scale of all
_NOISE = 1e-12  # of |y|: what lies below is rounding of the float64 values themselves
_DAY_MS = 86_400_000


class Features(NamedTuple):
    """The part of the body that this module keeps."""

    seen: Tensor  # (1, N) readings so far
    levels: Tensor  # (4, N) smoothers, relative to the last value
    lags: Tensor  # (2, N) the differences before the last one, newest first
    averages: Tensor  # (16, N) trends, errors of the anchors, scales, habits

    @property
    def trends(self) -> Tensor:
        """Mean differences, (3, N)."""
        return self.averages[: len(TRENDS)]

    @property
    def errors(self) -> Tensor:
        """Mean absolute errors of the anchors, (8, N)."""
        return self.averages[len(TRENDS) : len(TRENDS) + ANCHORS]


class Constants(NamedTuple):
    """Small tensors that the functions need, on their device."""

    keep: Tensor  # (4, 1) 1 - rate of the levels
    rates: Tensor  # (16, 1)
    day: Tensor  # (2, 1) phases of cosine and sine


def constants(device: torch.device | str = "cpu") -> Constants:
    """The constants on `device`."""
    return Constants(
        1 - torch.tensor(LEVELS, device=device)[:, None],
        torch.tensor(_RATES, device=device)[:, None],
        torch.tensor([0.0, torch.pi / 2], device=device)[:, None],
    )


def anchors(state: Features) -> Tensor:
    """One-step forecasts relative to the last value, (A, N): the last value, the levels, last value + trend."""
    return torch.cat([torch.zeros_like(state.seen), state.levels, state.trends])


def update(state: Features, dx: Tensor, log_gap: Tensor, constant: Constants) -> Features:
    """Take in a reading that lies `dx` (1, N) above the last one, `log_gap` (1, N) log seconds after it.

    For the first reading of a series `dx` and `log_gap` are 0.
    """
    seen = state.seen
    levels = state.levels - dx  # the old ones, now seen from the new value
    rates = torch.maximum(constant.rates, 1 / seen.clamp(min=1))
    size = dx.abs()
    target = torch.cat(
        [
            dx.expand(len(TRENDS), -1),
            (anchors(state) - dx).abs(),
            size,
            size,
            levels[:1].abs(),
            (dx == 0).to(dx.dtype),
            log_gap,
        ]
    )
    return Features(
        seen + 1,
        levels * torch.minimum(constant.keep, 1 - 1 / (seen + 1)),
        torch.cat([state.averages[:1], state.lags[:1]]),
        torch.lerp(state.averages, target, rates),
    )


def inputs(
    state: Features, y: Tensor, log_gap: Tensor, timestamp: Tensor, constant: Constants
) -> tuple[Tensor, Tensor]:
    """What the cell sees of an updated state, (INPUTS, N), and the unit of the forecast, (1, N).

    `y` (1, N) is the value itself, `timestamp` (1, N) int64 epoch ms. The unit is the running error of the best anchor.
    """
    magnitude = y.abs()
    floor = magnitude * _NOISE + _TINY
    sizes = torch.cat([state.errors, state.averages[-4:-2], state.averages[-5:-4]]) + floor  # errors, fast, mad, slow
    logs = sizes.log()
    slow, log_slow = sizes[-1:], logs[-1:]
    ratios = torch.cat([state.levels, state.averages[: len(TRENDS)], state.lags, y]) / slow
    angle = (timestamp % _DAY_MS).to(y.dtype) * (2 * torch.pi / _DAY_MS)
    gap = state.averages[-1:]
    x = torch.cat(
        [
            torch.copysign(ratios.abs().log1p(), ratios),
            logs[:-1] - log_slow,
            torch.cos(angle - constant.day),
            state.averages[-2:-1],
            state.seen.log1p(),
            log_gap - gap,
            gap * 0.25,
            magnitude.log1p() * 0.1,
        ]
    )
    return x.clamp(-_LIMIT, _LIMIT), sizes[:ANCHORS].amin(0, keepdim=True)
