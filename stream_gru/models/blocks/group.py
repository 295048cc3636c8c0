"""What blocks made of blocks share: the parts' states lie side by side in one vector, and so do their gates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from stream_gru.models.block import Block


class Group(Block):
    """Several blocks as one; a subclass says how they are connected."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(blocks)
        self.input_size = blocks[0].input_size
        self.sizes = [block.state_size for block in blocks]
        self.state_size = sum(self.sizes)

    @property
    def blocks(self) -> list[Block]:
        """The parts, in order."""
        return list(self.parts)  # type: ignore[arg-type]  # a ModuleList forgets what its modules are

    def initial_state(self, n: int) -> Tensor:
        """(n, S): the parts' initial states."""
        return torch.cat([block.initial_state(n) for block in self._remembering()], 1)

    def split(self, state: Tensor) -> tuple[Tensor, ...]:
        """state (n, S) -> each part's state."""
        return torch.split(state, self.sizes, 1)

    def join(self, states: Sequence[Tensor]) -> Tensor:
        """The reverse of `split`."""
        return torch.cat(list(states), 1)

    def _remembering(self) -> list[Block]:
        # One without memory may not even know the device, unless there is none but these.
        return [block for block in self.blocks if block.state_size] or self.blocks[:1]


def merge(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The gates of several blocks as those of one: units of gates of one name lie side by side."""
    merged: dict[str, list[Tensor]] = {}
    for gates in parts:
        for name, values in gates.items():
            merged.setdefault(name, []).append(values)
    return {name: torch.cat(values, 1) for name, values in merged.items()}
