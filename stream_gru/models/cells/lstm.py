"""Long short-term memory (Hochreiter and Schmidhuber 1997), with the forget gate of Gers et al. (2000)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stream_gru.models.cells import Cell, orthogonal, tanh, xavier


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
        self.input_weights = nn.Parameter(torch.empty(inputs, 4 * hidden))  # W: i, f, o, g
        self.bias = nn.Parameter(torch.empty(4 * hidden))
        self.recurrent_weights = nn.Parameter(torch.empty(hidden, 4 * hidden))  # U
        self.initialise()

    def orthogonal(self) -> None:
        """See `Cell.initialise`; the forget gate's bias is 1."""
        hidden = self.output_size
        xavier(self.input_weights, hidden)
        orthogonal(self.recurrent_weights, hidden)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.bias.detach()[hidden : 2 * hidden])

    def project(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., 4 H): input, forget, output, candidate."""
        return nn.functional.linear(x, self.input_weights.T, self.bias)

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See `Cell.advance`."""
        h, c = state.chunk(2, 1)
        gates, candidate = self._sums(projected, h)
        write, keep, show = gates.sigmoid().chunk(3, 1)
        c = torch.addcmul(keep * c, write, tanh(candidate))
        return torch.cat([show * tanh(c), c], 1)

    def activations(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """``input`` (0: nothing new is written), ``forget`` (1: keep) and ``output`` (0: the memory is not shown)."""
        gates, _ = self._sums(projected, state[:, : self.output_size])
        return dict(zip(("input", "forget", "output"), gates.sigmoid().chunk(3, 1), strict=True))

    def _sums(self, projected: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """What the gates and the candidate are made of: one product; float32 again where that was in half precision."""
        sums = torch.addmm(projected, h, self.recurrent_weights).type_as(h)
        return torch.split(sums, [3 * self.output_size, self.output_size], 1)


CELL = LSTM
