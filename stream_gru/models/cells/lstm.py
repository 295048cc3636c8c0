"""Long short-term memory (Hochreiter and Schmidhuber 1997), with the forget gate of Gers et al. (2000)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stream_gru.models.cells import Cell, Scheme, draw


class LSTM(Cell):
    """Input gate i, forget gate f, output gate o, candidate g; the state is [h, c]::

        i, f, o = sigmoid(W x + U h + b), each with weights of its own
        g = tanh(W_g x + U_g h + b_g)
        c' = f c + i g
        h' = o tanh(c')

    A forget gate of 1 carries the cell's memory c on, 0 drops it.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, 2 * hidden)
        self.weights = nn.Parameter(torch.empty(inputs + hidden, 4 * hidden))  # x and h -> i, f, o, g
        self.bias = nn.Parameter(torch.empty(4 * hidden))
        self.initialise()

    def initialise(self, scheme: Scheme = "orthogonal") -> None:
        """See `Cell.initialise`; the forget gate's bias is 1."""
        hidden = self.output_size
        if scheme == "uniform":
            for weight in (self.weights, self.bias):
                nn.init.uniform_(weight, -(hidden**-0.5), hidden**-0.5)
        else:
            draw(self.weights, self.input_size)
            nn.init.zeros_(self.bias)
            nn.init.ones_(self.bias.data[hidden : 2 * hidden])
        nn.init.zeros_(self.start)

    def project(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., 4 H): input, forget, output, candidate."""
        return x @ self.weights[: self.input_size] + self.bias

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See `Cell.advance`."""
        h, c = state.chunk(2, 1)
        return self._combine(torch.addmm(projected, h, self.weights[self.input_size :]), c)

    def activations(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """``input`` (0: nothing new is written), ``forget`` (1: keep) and ``output`` (0: the memory is not shown)."""
        h = state[:, : self.output_size]
        gates = torch.addmm(projected, h, self.weights[self.input_size :])[:, : 3 * self.output_size]
        return dict(zip(("input", "forget", "output"), gates.sigmoid().chunk(3, 1), strict=True))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As `project` and `advance`, with one product for all gates."""
        h, c = state.chunk(2, 1)
        state = self._combine(torch.addmm(self.bias, torch.cat([x, h], 1), self.weights), c)
        return state[:, : self.output_size], state

    def _combine(self, sums: Tensor, c: Tensor) -> Tensor:
        hidden = self.output_size
        write, keep, show = sums[:, : 3 * hidden].sigmoid().chunk(3, 1)
        c = torch.addcmul(keep * c, write, sums[:, 3 * hidden :].tanh())
        return torch.cat([show * c.tanh(), c], 1)


CELL = LSTM
