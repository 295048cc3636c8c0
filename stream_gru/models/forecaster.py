"""From what the row knows to quantiles of the next value: inputs -> cell -> head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stream_gru import features, models

QUANTILES = (0.5, 0.05, 0.95)  # the median and the central 90% interval
_LARGEST = 12.0  # sinh of it, in units, is the farthest that a quantile leaves the anchors: 80,000


class Forecaster(nn.Module):
    """Mixes the anchors by softmax and adds quantiles in units of the best anchor's error.

    With little to go by the mixture is close to the anchor that has done best, so that a series is forecast sensibly
    from its first readings.
    """

    def __init__(self, cell: str, hidden: int, horizons: Sequence[int]) -> None:
        """`horizons` are the farther steps, beside the next one, that are forecast."""
        super().__init__()
        self.steps = (1, *horizons)
        self.cell = models.cell(cell)(features.INPUTS, hidden)
        self.head = nn.Linear(self.cell.output_size, len(self.steps) * (features.ANCHORS + len(QUANTILES)))
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        reach = torch.ones(len(self.steps), features.ANCHORS - 1, 1)
        reach[:, -len(features.TRENDS) :, 0] = torch.tensor(self.steps, dtype=torch.float32)[:, None]
        self.reach: Tensor
        self.sides: Tensor
        self.register_buffer("sides", torch.tensor([0.0, -1.0, 1.0])[:, None], persistent=False)
        self.register_buffer("reach", reach, persistent=False)

    def forecast(self, output: Tensor, moves: Tensor, unit: Tensor) -> Tensor:
        """output (N, H), `features.moves` (A - 1, N), unit (1, N) -> (1 + K, 3, N): median, lower, upper at each step.

        All of them are relative to the last value, which is the first anchor.
        """
        out = torch.addmm(self.head.bias[:, None], self.head.weight, output.T)
        out = out.view(len(self.steps), features.ANCHORS + len(QUANTILES), -1)
        weights = out[:, : features.ANCHORS].softmax(1)
        centre = (weights[:, 1:] * (moves * self.reach)).sum(1, keepdim=True)  # (1 + K, 1, N)
        own = out[:, features.ANCHORS :]  # the median, and how far the others lie from it
        quantiles = torch.addcmul(own[:, :1], nn.functional.softplus(own), self.sides).clamp(-_LARGEST, _LARGEST)
        return torch.addcmul(centre, quantiles.sinh(), unit)
