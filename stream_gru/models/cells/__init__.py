"""Recurrent cells. A file here with a subclass of `Cell` called CELL is a cell, by the file's name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Literal

import torch
from torch import Tensor, nn

from stream_gru.errors import BundleError
from stream_gru.models.block import Block

Scheme = Literal["orthogonal", "uniform"]


class Cell(Block):
    """A step from x and the state to the state; the output is the first `output_size` columns of the state.

    It comes in two parts, so that the products with x can be taken for all times at once: `project`, and `advance`,
    which needs the state.
    """

    def __init__(self, inputs: int, hidden: int, state_size: int | None = None) -> None:
        super().__init__()
        self.input_size, self.output_size = inputs, hidden
        self.state_size = hidden if state_size is None else state_size
        self.start = nn.Parameter(torch.zeros(self.state_size))

    def initialise(self, scheme: Scheme = "orthogonal") -> None:
        """Draw the weights anew.

        orthogonal: Xavier-uniform input weights (Glorot and Bengio 2010), orthogonal recurrent ones (Saxe et al.
        2014), gate by gate, zero biases but 1 where a gate then remembers (Jozefowicz et al. 2015). uniform: everything
        from (-1 / sqrt(H), 1 / sqrt(H)), as `torch.nn.GRUCell` does it.
        """
        if scheme == "orthogonal":
            self.orthogonal()
        else:
            for weight in self.parameters():
                nn.init.uniform_(weight, -(self.output_size**-0.5), self.output_size**-0.5)
        nn.init.zeros_(self.start)

    def orthogonal(self) -> None:
        """Draw the weights by that scheme."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """What the inputs alone add: (..., D) -> (..., P)."""
        raise NotImplementedError

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """projected (n, P), state (n, S) -> state (n, S)."""
        raise NotImplementedError

    def activations(self, projected: Tensor, state: Tensor) -> dict[str, Tensor]:
        """The gates in this step, (n, H) each. None where the cell has no gates."""
        return {}

    def initial_state(self, n: int) -> Tensor:
        """(n, S), learned."""
        return self.start.expand(n, -1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.step`."""
        state = self.advance(self.project(x), state)
        return state[:, : self.output_size], state

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.unroll`."""
        outputs = []
        for projected in self.project(x).unbind():
            state = self.advance(projected, state)
            outputs.append(state[:, : self.output_size])
        return torch.stack(outputs), state

    def gates(self, x: Tensor, state: Tensor) -> dict[str, Tensor]:
        """See `Block.gates`."""
        return self.activations(self.project(x), state)


def xavier(weights: Tensor, hidden: int) -> None:
    """Draw the input weights (D, gates H) of gates that lie side by side, each for itself."""
    for gate in torch.split(weights.detach(), hidden, 1):
        nn.init.xavier_uniform_(gate)


def orthogonal(weights: Tensor, hidden: int) -> None:
    """Draw the recurrent weights (H, gates H) of gates that lie side by side, each for itself."""
    for gate in torch.split(weights.detach(), hidden, 1):
        nn.init.orthogonal_(gate)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent within 2e-7. In inference on a CPU it is half the time of torch's, which a step feels."""
    if x.requires_grad or not x.is_cpu:
        return x.tanh()
    return (2 * x).sigmoid_().mul_(2).sub_(1)


def cells() -> dict[str, type[Cell]]:
    """Every cell there is, by the name of its file."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        cell = getattr(importlib.import_module(f"{__name__}.{module.name}"), "CELL", None)
        if cell is not None:
            found[module.name] = cell
    return found


def find(name: str) -> type[Cell]:
    """The cell called `name`. Raises `BundleError`, saying which there are."""
    known = cells()
    if name not in known:
        raise BundleError(f"there is no cell {name!r}; there are {', '.join(sorted(known))}")
    return known[name]
