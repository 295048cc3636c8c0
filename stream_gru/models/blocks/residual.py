"""A residual connection (He et al. 2016) around a block."""

from __future__ import annotations

from torch import Tensor, nn

from stream_gru.models.block import Block


class Residual(Block):
    """The block's output plus its input, which is projected where the widths differ."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block
        self.input_size, self.output_size = block.input_size, block.output_size
        self.state_size = block.state_size
        self.shortcut = (
            nn.Identity()
            if block.input_size == block.output_size
            else nn.Linear(block.input_size, block.output_size, bias=False)
        )

    def initial_state(self, n: int) -> Tensor:
        """(n, S), the block's."""
        return self.block.initial_state(n)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.step`."""
        output, state = self.block.step(x, state)
        return output + self.shortcut(x), state

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.unroll`."""
        outputs, state = self.block.unroll(x, state)
        return outputs + self.shortcut(x), state

    def gates(self, x: Tensor, state: Tensor) -> dict[str, Tensor]:
        """See `Block.gates`."""
        return self.block.gates(x, state)
