"""Dropout (Srivastava et al. 2014) between blocks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from stream_gru.models.block import Pointwise


class Dropout(Pointwise):
    """In training each unit is 0 with probability `rate`, and what stays is scaled by 1 / (1 - rate).

    It never lies on the way from one state to the next: there it would make the network forget (Zaremba et al. 2014).
    """

    def __init__(self, width: int, rate: float) -> None:
        super().__init__(width)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return functional.dropout(x, self.rate, self.training)
