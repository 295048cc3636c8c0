"""What every part of a network is: something that reads one input after another and remembers in one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A network whose whole memory of a series is one vector of `state_size` floats.

    What needs a window of the past (attention, convolution) keeps a ring of it in that vector, so that it streams too.
    A subclass sets the three sizes and defines `initial_state` and `step`; `unroll` may be done faster than step by
    step, with the same numbers.
    """

    input_size: int  # D
    state_size: int  # S
    output_size: int  # H

    def initial_state(self, n: int) -> Tensor:
        """The state of `n` series that no input was seen of, (n, S)."""
        raise NotImplementedError

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One input of each of n series: x (n, D), state (n, S) -> output (n, H), state (n, S)."""
        raise NotImplementedError

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The same as T steps: x (T, n, D), state (n, S) -> outputs (T, n, H), state (n, S)."""
        outputs = []
        for now in x.unbind():
            output, state = self.step(now, state)
            outputs.append(output)
        return torch.stack(outputs), state

    def gates(self, x: Tensor, state: Tensor) -> dict[str, Tensor]:
        """The gates' activations (n, units) in this step, by their names: ``update``, ``reset``... None: no gates."""
        return {}


class Pointwise(Block):
    """A block without memory: its `forward` maps (..., D) to (..., H)."""

    state_size = 0

    def __init__(self, inputs: int, outputs: int | None = None) -> None:
        super().__init__()
        self.input_size, self.output_size = inputs, inputs if outputs is None else outputs

    def initial_state(self, n: int) -> Tensor:
        """(n, 0)."""
        return next((weight.new_empty(n, 0) for weight in self.parameters()), torch.empty(n, 0))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, D) -> (n, H)."""
        return self(x), state

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, n, D) -> (T, n, H)."""
        return self(x), state
