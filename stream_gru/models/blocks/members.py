"""Blocks beside each other: a deep ensemble (Lakshminarayanan et al. 2017), or a GRU beside an LSTM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stream_gru.models.block import Block
from stream_gru.models.blocks.group import Group, merge


class Members(Group):
    """Every block sees the same input and nothing of the others; their outputs lie side by side, (n, M H)."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__(blocks)
        self.output_size = sum(block.output_size for block in blocks)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.step`."""
        parts = zip(self.blocks, self.split(state), strict=True)
        outputs, states = zip(*(block.step(x, part) for block, part in parts), strict=True)
        return torch.cat(outputs, 1), self.join(states)

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.unroll`."""
        parts = zip(self.blocks, self.split(state), strict=True)
        outputs, states = zip(*(block.unroll(x, part) for block, part in parts), strict=True)
        return torch.cat(outputs, 2), self.join(states)

    def gates(self, x: Tensor, state: Tensor) -> dict[str, Tensor]:
        """See `Block.gates`; member after member."""
        return merge(block.gates(x, part) for block, part in zip(self.blocks, self.split(state), strict=True))
