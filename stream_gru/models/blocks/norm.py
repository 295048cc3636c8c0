"""Layer norm (Ba et al. 2016) and batch norm (Ioffe and Szegedy 2015) of a block's output."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from stream_gru.models.block import Pointwise


class Norm(Pointwise):
    """Brings units to mean 0 and deviation 1, with a learned scale and offset.

    layer: over the units of one reading. batch: each unit over all readings and series of a batch in training, by the
    running statistics of training otherwise, so that a streamed series never depends on its neighbours. Both stand
    between layers only: inside the recurrence batch norm hurts (Laurent et al. 2016).
    """

    def __init__(self, width: int, kind: Literal["layer", "batch"]) -> None:
        super().__init__(width)
        self.norm = nn.LayerNorm(width) if kind == "layer" else nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        rows = x.reshape(-1, self.input_size)
        return self._normed(rows).view(x.shape)

    def _normed(self, rows: Tensor) -> Tensor:
        norm = self.norm
        if isinstance(norm, nn.BatchNorm1d) and len(rows) == 1:  # in training too: one alone has no deviation
            mean, variance = norm.running_mean, norm.running_var
            return functional.batch_norm(rows, mean, variance, norm.weight, norm.bias, eps=norm.eps)
        normed: Tensor = norm(rows)
        return normed
