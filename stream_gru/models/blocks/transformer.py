"""One small causal transformer block (Vaswani et al. 2017), normalised in front of its parts (Xiong et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stream_gru.models.block import Block
from stream_gru.models.blocks import ring


class Transformer(Block):
    """Self-attention over the last `window` inputs, then a perceptron; each adds to what it is given::

        z = norm(x);  y = x + W_o heads(z) + b_o;  output = y + W_2 gelu(W_1 norm(y) + b_1) + b_2

    Each head has a learned bias by age in place of positions (Raffel et al. 2020). The state is a `ring` of z alone,
    half of what keys and values take: the score q' (W_k z_s) is (W_k' q)' z_s, and the mean of the values W_v z_s is
    W_v times the mean of the z_s, so both projections are done once a step instead of once a row of the window, and a
    step costs O(window * width * heads). A bias of the keys would cancel in the softmax, one of the values is in b_o.
    """

    def __init__(self, width: int, window: int, heads: int, dropout: float = 0.0) -> None:
        """`heads` must divide `width`; `dropout` is of what each part adds."""
        super().__init__()
        self.input_size = self.output_size = width
        self.window, self.heads, self.state_size = window, heads, ring.size(window, width)
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Parameter(torch.empty(width, width))  # a head is a stretch of width / heads rows
        self.value = nn.Parameter(torch.empty(width, width))
        self.age = nn.Parameter(torch.zeros(heads, window))  # the oldest first
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)
        for weight in (self.query.weight, self.key, self.value, self.out.weight):
            nn.init.xavier_uniform_(weight)
        for bias in (self.query.bias, self.out.bias):
            nn.init.zeros_(bias)

    def initial_state(self, n: int) -> Tensor:
        """(n, S): nothing to look back at."""
        return self.age.new_zeros(n, self.state_size)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.step`."""
        z = self.attention_norm(x)
        state = ring.push(state, z)
        means = ring.look_back(self._queries(z[:, None]), *ring.window(state, self.input_size), self.age)
        return self._output(x, means[:, 0]), state

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.unroll`."""
        z = self.attention_norm(x).transpose(0, 1)
        means = ring.look_back(self._queries(z), *ring.windows(state, z), self.age)
        return self._output(x, means.transpose(0, 1)), ring.extend(state, z)

    def _queries(self, z: Tensor) -> Tensor:
        """W_k' q / sqrt(d) of each head: (n, T, D) -> (n, T, heads, D)."""
        width = self.input_size // self.heads
        query = self.query(z).view(*z.shape[:-1], self.heads, width) * width**-0.5
        return torch.einsum("nthd,hdw->nthw", query, self.key.view(self.heads, width, -1))

    def _output(self, x: Tensor, means: Tensor) -> Tensor:
        """x (..., D), each head's mean of the z in its eyes (..., heads, D) -> (..., D)."""
        value = self.value.view(self.heads, -1, self.input_size)
        found = torch.einsum("...hw,hdw->...hd", means, value).flatten(-2)
        y = x + self.dropout(self.out(found))
        output: Tensor = y + self.dropout(self.perceptron(y))
        return output
