"""From what the row knows to quantiles of the next value: inputs -> cell -> head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stream_gru import features, models

QUANTILES = (0.05, 0.5, 0.95)  # the central 90% interval around the median
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
        trends = len(features.TRENDS)
        reach = torch.ones(len(self.steps), features.ANCHORS, 1)
        reach[:, -trends:, 0] = torch.tensor(self.steps, dtype=torch.float32)[:, None]
        self.reach: Tensor
        self.register_buffer("reach", reach, persistent=False)

    def forecast(self, output: Tensor, anchors: Tensor, unit: Tensor) -> Tensor:
        """output (N, H), anchors (A, N), unit (1, N) -> (1 + K, 3, N): lower, median and upper at each step.

        Like the anchors they are relative to the last value.
        """
        n = output.shape[0]
        out = torch.addmm(self.head.bias[:, None], self.head.weight, output.T).view(len(self.steps), -1, n)
        weights = out[:, : features.ANCHORS].softmax(1)
        centre = (weights * (anchors * self.reach)).sum(1, keepdim=True)  # (1 + K, 1, N)
        middle = out[:, -3:-2]
        away = nn.functional.softplus(out[:, -2:])
        quantiles = torch.cat([middle - away[:, :1], middle, middle + away[:, 1:]], 1).clamp(-_LARGEST, _LARGEST)
        return torch.addcmul(centre, quantiles.sinh(), unit)
