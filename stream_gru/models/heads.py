"""From what the network puts out to quantiles of a value some steps ahead."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist

import torch
from torch import Tensor, nn

from stream_gru.features import FeatureSet, FeatureView, asinh

_ASINH_MOST = 12.0  # sinh of it, in units, is the farthest that a quantile leaves the anchors: 80,000
_NORMAL_DEVIATION = 1.25  # of a normal distribution in its mean absolute errors: the square root of pi / 2


class Head(nn.Module):
    """Mixes the anchors by softmax and adds quantiles in units of the best anchor's error.

    With little to go by the mixture is close to the anchors that have done best, so that a series is forecast sensibly
    from its first readings.
    """

    levels: tuple[float, ...]  # Q, rising

    def forward(self, output: Tensor, view: FeatureView, steps: Tensor) -> Tensor:
        """output (N, H) -> quantiles of the value so many `steps` (S, 1 or N) ahead, relative to the present one,
        (S, Q, N)."""
        raise NotImplementedError


class LinearHead(Head):
    """A linear map for each of a few steps; median and 90% interval."""

    levels = (0.05, 0.5, 0.95)

    def __init__(self, width: int, features: FeatureSet, steps: tuple[int, ...]) -> None:
        super().__init__()
        self.steps, self.anchors = steps, features.anchors
        outputs = len(steps) * (self.anchors + len(self.levels))
        self.weight = nn.Parameter(torch.empty(outputs, width))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, output: Tensor, view: FeatureView, steps: Tensor) -> Tensor:
        """See `Head.forward`; the steps are those that it was made for."""
        out = torch.addmm(self.bias[:, None], self.weight, output.T)
        out = out.view(len(self.steps), self.anchors + len(self.levels), -1)
        return _quantiles(out[:, : self.anchors], out[:, self.anchors :], view.moves, view.unit)


class SharedHead(Head):
    """A linear map for the next step, and a small network that any farther step is put into; thirteen quantiles.

    The softmax of the mixture starts from the anchors' errors: weight 1 / error ** prior.
    """

    levels = (0.01, 0.05, *(round(0.1 * i, 1) for i in range(1, 10)), 0.95, 0.99)
    hidden = 64

    def __init__(self, width: int, features: FeatureSet) -> None:
        super().__init__()
        self.anchors, self.errors = features.anchors, features.errors
        outputs = self.anchors + len(self.levels)
        self.near = nn.Linear(width, outputs)
        self.far = nn.Linear(width, self.hidden)
        self.step = nn.Linear(self.anchors - 1 + 2, self.hidden, bias=False)
        self.out = nn.Linear(self.hidden, outputs)
        self.prior = nn.Parameter(torch.tensor([2.0, 1.0]))  # of the next step, and of farther ones
        for last in (self.near, self.out):
            nn.init.normal_(last.weight, std=0.01)
            with torch.no_grad():
                last.bias.zero_()
                last.bias[self.anchors :] = torch.tensor(_gaussian(self.levels))

    def forward(self, output: Tensor, view: FeatureView, steps: Tensor) -> Tensor:
        """See `Head.forward`; the first step is 1."""
        errors = view.x[self.errors]
        near = torch.addmm(self.near.bias[:, None], self.near.weight, output.T)
        made = [self._mixed(near[None], errors * self.prior[0], view.moves[:1], view.unit)]
        if len(steps) > 1:
            ahead = steps[1:, None]
            moves = asinh(view.moves[1:] / view.unit).clamp(-_ASINH_MOST, _ASINH_MOST)
            log = ahead.log().expand(-1, 1, moves.shape[-1])
            given = torch.cat([moves, log, log * log * 0.25], 1)  # (S - 1, A + 1, N)
            past = torch.addmm(self.far.bias[:, None], self.far.weight, output.T)
            hidden = nn.functional.silu(self.step.weight @ given + past)
            far = self.out.weight @ hidden + self.out.bias[:, None]
            made.append(self._mixed(far, errors * self.prior[1], view.moves[1:], view.unit * ahead.sqrt()))
        return torch.cat(made)

    def _mixed(self, out: Tensor, errors: Tensor, moves: Tensor, unit: Tensor) -> Tensor:
        return _quantiles(out[:, : self.anchors] - errors, out[:, self.anchors :], moves, unit)


def _quantiles(logits: Tensor, own: Tensor, moves: Tensor, unit: Tensor) -> Tensor:
    """logits (S, A, N), own (S, Q, N): the median, then the gaps to those below it and above it, outwards."""
    weights = logits.softmax(1)
    centre = (weights[:, 1:] * moves).sum(1, keepdim=True)  # the first anchor's move is 0
    sides = own.shape[1] // 2
    gaps = nn.functional.softplus(own[:, 1:])
    below, above = gaps[:, :sides].cumsum(1).flip(1), gaps[:, sides:].cumsum(1)
    median = own[:, :1]
    quantiles = torch.cat([median - below, median, median + above], 1).clamp(-_ASINH_MOST, _ASINH_MOST)
    return torch.addcmul(centre, quantiles.sinh(), unit)


def _gaussian(levels: tuple[float, ...]) -> list[float]:
    """What `_quantiles` makes a normal distribution of."""
    middle = len(levels) // 2
    heights = [math.asinh(_NORMAL_DEVIATION * NormalDist().inv_cdf(level)) for level in levels[middle:]]
    gaps = [math.log(math.expm1(b - a)) for a, b in pairwise(heights)]
    return [0.0, *gaps, *gaps]
