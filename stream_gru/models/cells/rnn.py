"""The plain recurrent network (Elman 1990): the baseline without gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stream_gru.models.cells import Cell, Scheme, draw


class RNN(Cell):
    """``h' = tanh(W x + U h + b)``."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.weights = nn.Parameter(torch.empty(inputs + hidden, hidden))  # x and h
        self.bias = nn.Parameter(torch.empty(hidden))
        self.initialise()

    def initialise(self, scheme: Scheme = "orthogonal") -> None:
        """See `Cell.initialise`; there is no gate that remembers, so the bias is 0."""
        bound = self.output_size**-0.5
        if scheme == "uniform":
            for weight in (self.weights, self.bias):
                nn.init.uniform_(weight, -bound, bound)
        else:
            draw(self.weights, self.input_size)
            nn.init.zeros_(self.bias)
        nn.init.zeros_(self.start)

    def project(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., H)."""
        return x @ self.weights[: self.input_size] + self.bias

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See `Cell.advance`."""
        return torch.addmm(projected, state, self.weights[self.input_size :]).tanh()

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As `project` and `advance`, in one product."""
        state = torch.addmm(self.bias, torch.cat([x, state], 1), self.weights).tanh()
        return state, state


CELL = RNN
