"""A causal convolution over the last inputs, in front of a recurrent cell (CNN-GRU)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stream_gru.models.block import Block


class Convolution(Block):
    """y_t = relu(b + sum_k W_k x_(t - k)), k = 0 ... width - 1; before the first input there are zeros.

    The state is the last width - 1 inputs, the oldest first. One product of the inputs in the window side by side
    serves a step and all times of an unroll, so that both round alike; torch's conv1d is no faster at these widths.
    """

    def __init__(self, inputs: int, channels: int, width: int) -> None:
        super().__init__()
        self.input_size, self.output_size, self.width = inputs, channels, width
        self.state_size = (width - 1) * inputs
        self.weight = nn.Parameter(torch.empty(width * inputs, channels))  # the oldest input first
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(
            self.weight.T, nonlinearity="relu"
        )  # He et al. 2015; T: torch counts columns as inputs

    def initial_state(self, n: int) -> Tensor:
        """(n, S): zeros."""
        return self.bias.new_zeros(n, self.state_size)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.step`."""
        seen = torch.cat([state, x], 1)
        return self._filter(seen), seen[:, self.input_size :]

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.unroll`."""
        past = state.view(len(state), self.width - 1, self.input_size).transpose(0, 1)
        seen = torch.cat([past, x])
        windows = seen.unfold(0, self.width, 1).transpose(2, 3)  # (T, n, width, D)
        return self._filter(windows.flatten(2)), seen[len(x) :].transpose(0, 1).flatten(1)

    def _filter(self, windows: Tensor) -> Tensor:
        """(..., width D) -> (..., channels)."""
        return nn.functional.linear(windows, self.weight.T, self.bias).relu()
