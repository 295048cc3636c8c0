"""A few averages and their errors: features that cost next to nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from stream_gru.features.observation import Observation
from stream_gru.features.set import FeatureSet, Table, View

_LEVELS = (0.005, 0.05, 0.2, 0.5)  # rates of the smoothers
_TRENDS = (1.0, 0.15, 0.03)  # rates of the mean difference; the first is the last difference itself
_ANCHORS = 1 + len(_LEVELS) + len(_TRENDS)  # the last value, each level, the last value + each trend
_MOVES = len(_LEVELS) + len(_TRENDS)
_SIZES = _ANCHORS + 3
_RATES = (
    *(*_LEVELS, *_TRENDS),
    *((0.04,) * _ANCHORS),  # mean absolute error of each anchor
    *(0.15, 0.005, 0.01),  # sizes: mean |dx| fast, mean |x - slowest level|, mean |dx| slow
    *(0.05, 0.05),  # habits: share of unchanged readings, mean log gap
)
_LAGS = 2  # differences before the last one
_LIMIT = 8.0  # of every input


class Light(FeatureSet):
    """Four smoothers and three trends."""

    size = _LAGS + len(_RATES)
    table = 0
    inputs = (_MOVES + _LAGS + 1) + (_SIZES - 1) + 2 + 5
    anchors = _ANCHORS
    errors = slice(_MOVES + _LAGS + 1, _MOVES + _LAGS + 1 + _ANCHORS)

    def __init__(self) -> None:
        super().__init__()
        self.rates: Tensor
        self.shift: Tensor  # -1 where an average is a level, else 0
        self.register_buffer("rates", torch.tensor(_RATES)[:, None], persistent=False)
        shift = torch.zeros(len(_RATES), 1)
        shift[: len(_LEVELS)] = -1
        self.register_buffer("shift", shift, persistent=False)

    def advance(
        self, state: Tensor, observed: Observation, table: Table, steps: Tensor, *, fixed: bool = False
    ) -> tuple[Tensor, View]:
        """See `FeatureSet.advance`. Trends are drawn out straight."""
        lags, averages = torch.split(state, [_LAGS, len(_RATES)])
        dx = observed.dx
        averages = torch.addcmul(averages, dx, self.shift)
        levels, trends = averages[: len(_LEVELS)], averages[len(_LEVELS) : _MOVES]
        misses = torch.cat([dx, levels, trends - dx, dx, levels[:1], dx]).abs()  # of the anchors, and the three sizes
        moved = [torch.zeros_like(levels), dx.expand_as(trends)]
        target = torch.cat([*moved, misses, observed.unchanged, observed.log_gap])
        averages = torch.lerp(averages, target, torch.maximum(self.rates, observed.rate))
        lags = torch.cat([trends[:1], lags[:1]])

        sizes = averages[_MOVES : _MOVES + _SIZES] + observed.floor
        logs = sizes.log()
        one = observed.scale if fixed else sizes[-1:]
        ratios = torch.cat([averages[:_MOVES], lags, observed.y]) / one
        context = [observed.log_gap, observed.cosine, observed.sine, observed.log_size, observed.log_seen]
        x = torch.cat(
            [
                torch.copysign(ratios.abs().log1p(), ratios),
                logs[:-1] - (one.log() if fixed else logs[-1:]),
                averages[_MOVES + _SIZES :],
                *context,
            ]
        ).clamp(-_LIMIT, _LIMIT)
        levels, trends = averages[: len(_LEVELS)], averages[len(_LEVELS) : _MOVES]
        drawn = trends * steps[:, None]
        moves = torch.cat([levels.expand(len(drawn), -1, -1), drawn], 1)
        unit = one if fixed else sizes[:_ANCHORS].amin(0, keepdim=True)
        return torch.cat([lags, averages]), View(x, moves, unit)
