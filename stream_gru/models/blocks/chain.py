"""Blocks one after another: layers, and what stands in front of and behind them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from stream_gru.models.block import Block
from stream_gru.models.blocks.group import Group, merge


class Chain(Group):
    """Each block's output is the next one's input."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__(blocks)
        self.output_size = blocks[-1].output_size

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.step`."""
        states = []
        for block, part in zip(self.blocks, self.split(state), strict=True):
            x, moved = block.step(x, part)
            states.append(moved)
        return x, self.join(states)

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.unroll`."""
        states = []
        for block, part in zip(self.blocks, self.split(state), strict=True):
            x, moved = block.unroll(x, part)
            states.append(moved)
        return x, self.join(states)

    def gates(self, x: Tensor, state: Tensor) -> dict[str, Tensor]:
        """See `Block.gates`; layer after layer."""
        found = []
        for block, part in zip(self.blocks, self.split(state), strict=True):
            found.append(block.gates(x, part))
            x, _ = block.step(x, part)
        return merge(found)
