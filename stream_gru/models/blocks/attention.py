"""The present hidden state looks back at the last ones (Bahdanau et al. 2015, in the form of Luong et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stream_gru.models.block import Block
from stream_gru.models.blocks import ring


class Attention(Block):
    """Adds to each h_t what it finds among the last `window` of them, itself included::

        w_s = softmax over s of (h_t' W_a h_s / sqrt(H) + bias of the age t - s)
        output = h_t + tanh(W_c [sum_s w_s h_s; h_t] + b)

    The scores are Luong's "general" ones, scaled, with a learned bias by age (Shaw et al. 2018, Raffel et al. 2020)
    because hidden states don't say how old they are. The state is a `ring` of the hidden states.
    """

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.input_size = self.output_size = width
        self.window, self.state_size = window, ring.size(window, width)
        self.query = nn.Parameter(torch.empty(width, width))
        self.age = nn.Parameter(torch.zeros(1, window))  # the oldest first
        self.combine = nn.Linear(2 * width, width)
        nn.init.xavier_uniform_(self.query)
        nn.init.xavier_uniform_(self.combine.weight)
        nn.init.zeros_(self.combine.bias)

    def initial_state(self, n: int) -> Tensor:
        """(n, S): nothing to look back at."""
        return self.age.new_zeros(n, self.state_size)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.step`."""
        state = ring.push(state, x)
        context = ring.look_back(self._queries(x[:, None]), *ring.window(state, self.input_size), self.age)
        return self._output(context[:, 0, 0], x), state

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.unroll`."""
        h = x.transpose(0, 1)
        context = ring.look_back(self._queries(h), *ring.windows(state, h), self.age)
        return self._output(context[:, :, 0].transpose(0, 1), x), ring.extend(state, h)

    def weights(self, x: Tensor, state: Tensor) -> Tensor:
        """What a step gives to each place of its window, the oldest first: x (n, D), state (n, S) -> (n, window)."""
        rows, there = ring.window(ring.push(state, x), self.input_size)
        return ring.weights(self._queries(x[:, None]), rows, there, self.age)[:, 0, 0]

    def _queries(self, h: Tensor) -> Tensor:
        """(n, T, D) -> (n, T, 1, D)."""
        return torch.matmul(h, self.query * self.input_size**-0.5).unsqueeze(2)

    def _output(self, context: Tensor, h: Tensor) -> Tensor:
        return h + torch.tanh(self.combine(torch.cat([context, h], -1)))
