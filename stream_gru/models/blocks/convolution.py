"""A causal convolution over the last inputs, in front of a recurrent cell (CNN-GRU)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stream_gru.models.block import Block


class Convolution(Block):
    """y_t = relu(b + sum_k W_k x_(t - k)), k = 0 ... width - 1; before the first input there are zeros.

    The state is the last width - 1 inputs, the oldest first.
    """

    def __init__(self, inputs: int, channels: int, width: int) -> None:
        super().__init__()
        self.input_size, self.output_size = inputs, channels
        self.state_size = (width - 1) * inputs
        self.weight = nn.Parameter(torch.empty(channels, inputs, width))  # the oldest input first, as in torch's Conv1d
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")  # He et al. 2015

    def initial_state(self, n: int) -> Tensor:
        """(n, S)."""
        return self.bias.new_zeros(n, self.state_size)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.step`."""
        seen = torch.cat([state, x], 1)
        output = torch.addmm(self.bias, seen, self.weight.permute(2, 1, 0).flatten(0, 1)).relu()
        return output, seen[:, self.input_size :]

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.unroll`."""
        past = state.view(len(state), self.state_size // self.input_size, self.input_size).transpose(0, 1)
        seen = torch.cat([past, x])
        output = nn.functional.conv1d(seen.permute(1, 2, 0), self.weight, self.bias).relu()
        return output.permute(2, 0, 1), seen[len(x) :].transpose(0, 1).flatten(1)
