"""The plain recurrent network (Elman 1990): the baseline without gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stream_gru.models.cells import Cell, orthogonal, tanh, xavier


class RNN(Cell):
    """``h' = tanh(W x + U h + b)``."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.input_weights = nn.Parameter(torch.empty(inputs, hidden))  # W
        self.bias = nn.Parameter(torch.empty(hidden))
        self.recurrent_weights = nn.Parameter(torch.empty(hidden, hidden))  # U
        self.initialise()

    def orthogonal(self) -> None:
        """See `Cell.initialise`; no gate remembers, so the bias is 0."""
        xavier(self.input_weights, self.output_size)
        orthogonal(self.recurrent_weights, self.output_size)
        nn.init.zeros_(self.bias)

    def project(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., H)."""
        return nn.functional.linear(x, self.input_weights.T, self.bias)

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See `Cell.advance`."""
        sums = torch.addmm(projected, state, self.recurrent_weights)
        return tanh(sums.type_as(state))  # float32 again where the product was taken in half precision


CELL = RNN
