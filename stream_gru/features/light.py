"""A few averages and their errors: features that cost next to nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from stream_gru.features.observation import Observation
from stream_gru.features.set import FeatureSet, FeatureView, NetworkInput, RowTable, StatePart, rows_of

# Set by hand; what `expert_tables` has as well has the same rate there.
_LEVEL_RATES = (0.005, 0.05, 0.2, 0.5)  # of the smoothers, the slowest first
_TREND_RATES = (1.0, 0.15, 0.03)  # of the mean differences; the first is the last difference itself
_LEVELS, _TRENDS, _LAGS = len(_LEVEL_RATES), len(_TREND_RATES), 2
_ANCHORS = 1 + _LEVELS + _TRENDS  # the last value, each level, the last value + each trend
_INPUT_LIMIT = 8.0  # of every input of the network

_AVERAGES = {
    "levels": StatePart("the smoothers, relative to the last value", _LEVELS, _LEVEL_RATES),
    "trends": StatePart("mean differences", _TRENDS, _TREND_RATES),
    "errors": StatePart("mean size of each anchor's error", _ANCHORS, (0.04,) * _ANCHORS),
    "fast": StatePart("mean size of the differences, of late", 1, (0.15,)),
    "spread": StatePart("mean distance to the slowest smoother", 1, (0.005,)),
    "slow": StatePart("mean size of the differences: the unit of what the network sees", 1, (0.01,)),
    "unchanged": StatePart("share of the readings that equal the one before", 1, (0.05,)),
    "interval": StatePart("half the logarithm of the usual seconds between readings", 1, (0.05,)),
}
"""The state: in front of these only the differences before the last one."""
_WIDTHS = [(name, part.floats) for name, part in _AVERAGES.items()]
_MOVES = slice(0, rows_of(_WIDTHS, "trends").stop)
_SIZES = slice(_MOVES.stop, rows_of(_WIDTHS, "slow").stop)
_HABITS = slice(_SIZES.stop, rows_of(_WIDTHS, "interval").stop)

_INPUTS = (
    NetworkInput("levels", _LEVELS, "log1p", "the smoothers"),
    NetworkInput("trends", _TRENDS, "log1p", "mean differences"),
    NetworkInput("lags", _LAGS, "log1p", "the differences before the last one"),
    NetworkInput("y", 1, "log1p", "the value itself"),
    NetworkInput("errors", _ANCHORS, "log", "mean size of each anchor's error"),
    NetworkInput("fast", 1, "log", "mean size of the differences, of late"),
    NetworkInput("spread", 1, "log", "mean distance to the slowest smoother"),
    NetworkInput("unchanged", 1, "plain", "share of the readings that equal the one before"),
    NetworkInput("interval", 1, "plain", "half the logarithm of the usual seconds between readings"),
    NetworkInput("log_gap", 1, "plain", "the same of the last gap"),
    NetworkInput("cosine", 1, "plain", "of the time of the day, UTC"),
    NetworkInput("sine", 1, "plain", "the same"),
    NetworkInput("log_size", 1, "plain", "a tenth of the logarithm of 1 + the value's size"),
    NetworkInput("log_seen", 1, "plain", "logarithm of 1 + the readings seen"),
)
"""In the order of the network's inputs. ``log1p`` and ``log`` are of the quantity in mean differences."""


class Light(FeatureSet):
    """Four smoothers and three trends."""

    size = _LAGS + sum(part.floats for part in _AVERAGES.values())
    table = 0
    inputs = sum(row.floats for row in _INPUTS)
    anchors = _ANCHORS
    errors = rows_of([(row.name, row.floats) for row in _INPUTS], "errors")

    def __init__(self) -> None:
        super().__init__()
        self.rates: Tensor
        self.shift: Tensor  # -1 where an average is a level, else 0
        rates = [rate for part in _AVERAGES.values() for rate in part.rates]
        self.register_buffer("rates", torch.tensor(rates)[:, None], persistent=False)
        shift = torch.zeros(len(rates), 1)
        shift[rows_of(_WIDTHS, "levels")] = -1
        self.register_buffer("shift", shift, persistent=False)

    def advance(
        self, state: Tensor, observed: Observation, table: RowTable, steps: Tensor, *, fixed: bool = False
    ) -> tuple[Tensor, FeatureView]:
        """See `FeatureSet.advance`. Trends are drawn out straight."""
        lags, averages = torch.split(state, [_LAGS, len(self.rates)])
        dx = observed.dx
        averages = torch.addcmul(averages, dx, self.shift)
        levels, trends = torch.split(averages[_MOVES], [_LEVELS, _TRENDS])
        misses = torch.cat([dx, levels, trends - dx, dx, levels[:1], dx]).abs()  # of the anchors, and the three sizes
        moved = [torch.zeros_like(levels), dx.expand_as(trends)]
        target = torch.cat([*moved, misses, observed.unchanged, observed.log_gap])
        averages = torch.lerp(averages, target, torch.maximum(self.rates, observed.rate))
        lags = torch.cat([trends[:1], lags[:1]])

        sizes = averages[_SIZES] + observed.floor
        logs = sizes.log()
        one = observed.scale if fixed else sizes[-1:]
        ratios = torch.cat([averages[_MOVES], lags, observed.y]) / one
        context = [observed.log_gap, observed.cosine, observed.sine, observed.log_size, observed.log_seen]
        x = torch.cat(
            [
                torch.copysign(ratios.abs().log1p(), ratios),
                logs[:-1] - (one.log() if fixed else logs[-1:]),
                averages[_HABITS],
                *context,
            ]
        ).clamp(-_INPUT_LIMIT, _INPUT_LIMIT)
        levels, trends = torch.split(averages[_MOVES], [_LEVELS, _TRENDS])
        drawn = trends * steps[:, None]
        moves = torch.cat([levels.expand(len(drawn), -1, -1), drawn], 1)
        unit = one if fixed else sizes[:_ANCHORS].amin(0, keepdim=True)
        return torch.cat([lags, averages]), FeatureView(x, moves, unit)
