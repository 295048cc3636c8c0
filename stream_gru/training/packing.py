"""Sequences of different lengths through any block, without a step on their padding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from stream_gru.models.block import Block


def unroll(network: Block, x: Tensor, state: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, n, D), of which the first `length` (n,) are no padding; state (n, S) -> outputs (T, n, H), state (n, S).

    The state is that after each sequence's own last reading; the outputs on padding are 0, whatever the padding holds.
    The sequences are sorted by length, so that those which go on are always the first ones: between two lengths they
    are unrolled as one. `length` may lie on the host, and is read there.
    """
    length = length.to("cpu")
    order = torch.argsort(length, descending=True, stable=True)
    ordered = length[order]
    order = order.to(x.device)
    x, state = x[:, order], state[order]
    outputs: list[Tensor] = []
    finals: list[Tensor] = []  # shortest first
    begin = 0
    for end in torch.unique(ordered).tolist():
        active, going_on = int((ordered >= end).sum()), int((ordered > end).sum())
        if end > begin:
            output, state = network.unroll(x[begin:end, :active], state)
            outputs.append(pad(output, (0, 0, 0, x.shape[1] - active)))
            begin = end
        finals.append(state[going_on:])
        state = state[:going_on]
    outputs.append(x.new_zeros(len(x) - begin, x.shape[1], network.output_size))
    back = torch.argsort(order)
    return torch.cat(outputs)[:, back], torch.cat(finals[::-1])[back]
