"""Zoneout (Krueger et al. 2017): dropout for states, which keeps a unit as it was instead of setting it to 0."""

from __future__ import annotations

import torch
from torch import Tensor

from stream_gru.models.cells import Cell, Scheme


class Zoneout(Cell):
    """A cell around a cell. In training each unit of the state keeps its old value with probability `rate`.

    In inference it takes the expectation, ``rate s + (1 - rate) s'``. Of an LSTM both h and c zone out, and h is made
    from the c before that, as in the paper.
    """

    def __init__(self, cell: Cell, rate: float) -> None:
        super(Cell, self).__init__()  # past Cell: the state's start is the inner cell's
        self.cell, self.rate = cell, rate
        self.input_size, self.output_size, self.state_size = cell.input_size, cell.output_size, cell.state_size

    def initialise(self, scheme: Scheme = "orthogonal") -> None:
        """The inner cell's."""
        self.cell.initialise(scheme)

    def initial_state(self, n: int) -> Tensor:
        """(n, S), the inner cell's."""
        return self.cell.initial_state(n)

    def project(self, x: Tensor) -> Tensor:
        """The inner cell's."""
        return self.cell.project(x)

    def activations(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """The inner cell's: what it would do, before units are kept."""
        return self.cell.activations(projected, state)

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See `Cell.advance`."""
        moved = self.cell.advance(projected, state)
        if self.training:
            return torch.where(torch.rand_like(moved) < self.rate, state, moved)
        return torch.lerp(moved, state, self.rate)
