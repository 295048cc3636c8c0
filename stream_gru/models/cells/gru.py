"""The gated recurrent unit (Cho et al. 2014), reset after the product as in cuDNN and torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stream_gru.models.cells import Cell, Scheme, draw


class GRU(Cell):
    """Update gate z, reset gate r, candidate c::

        z = sigmoid(W_z x + U_z h + b_z)
        r = sigmoid(W_r x + U_r h + b_r)
        c = tanh(W_c x + b_c + r (U_c h + d_c))
        h' = z h + (1 - z) c

    The update gate KEEPS: 1 carries the state on unchanged, 0 replaces it by the candidate. That is the convention of
    Cho et al. and of torch; Chung et al. (2014) and many texts call 1 - z the update gate.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.gate_weights = nn.Parameter(torch.empty(inputs + hidden, 2 * hidden))  # x and h -> r, z
        self.gate_bias = nn.Parameter(torch.empty(2 * hidden))
        self.candidate = nn.Parameter(torch.empty(inputs, hidden))
        self.candidate_bias = nn.Parameter(torch.empty(hidden))
        self.recurrent = nn.Parameter(torch.empty(hidden, hidden))
        self.recurrent_bias = nn.Parameter(torch.empty(hidden))
        self.initialise()

    def initialise(self, scheme: Scheme = "orthogonal") -> None:
        """See `Cell.initialise`; the update gate's bias is 1."""
        hidden = self.output_size
        if scheme == "uniform":
            for weight in self.parameters():
                nn.init.uniform_(weight, -(hidden**-0.5), hidden**-0.5)
        else:
            draw(self.gate_weights, self.input_size)
            nn.init.xavier_uniform_(self.candidate)
            nn.init.orthogonal_(self.recurrent)
            for bias in (self.candidate_bias, self.recurrent_bias, self.gate_bias):
                nn.init.zeros_(bias)
            nn.init.ones_(self.gate_bias.data[hidden:])
        nn.init.zeros_(self.start)

    def project(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., 3 H): reset, update, candidate."""
        return torch.cat([x @ self.gate_weights[: self.input_size] + self.gate_bias, self._candidate(x)], -1)

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See `Cell.advance`."""
        gates, candidate = torch.split(projected, [2 * self.output_size, self.output_size], 1)
        return self._combine(torch.addmm(gates, state, self.gate_weights[self.input_size :]), candidate, state)

    def activations(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """``update`` (1: keep) and ``reset`` (0: the candidate ignores the past)."""
        gates = torch.addmm(projected[:, : 2 * self.output_size], state, self.gate_weights[self.input_size :])
        reset, update = gates.sigmoid().chunk(2, 1)
        return {"update": update, "reset": reset}

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As `project` and `advance`, with one product for both gates: on a CPU half the time of torch's GRUCell."""
        gates = torch.addmm(self.gate_bias, torch.cat([x, state], 1), self.gate_weights)
        state = self._combine(gates, self._candidate(x), state)
        return state, state

    def _candidate(self, x: Tensor) -> Tensor:
        return x @ self.candidate + self.candidate_bias

    def _combine(self, gates: Tensor, candidate: Tensor, state: Tensor) -> Tensor:
        reset, update = gates.sigmoid().chunk(2, 1)
        proposal = torch.addcmul(candidate, reset, torch.addmm(self.recurrent_bias, state, self.recurrent)).tanh()
        return torch.lerp(proposal, state, update)


CELL = GRU
