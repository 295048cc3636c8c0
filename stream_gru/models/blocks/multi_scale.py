"""Cells that tick at different rates: a neighbour of the clockwork RNN (Koutnik et al. 2014)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stream_gru.models.block import Block
from stream_gru.models.blocks.group import merge
from stream_gru.models.cells import Cell

SLOWEST = 2**24  # readings between two ticks: float32 counts no farther


class MultiScale(Block):
    """Cells beside each other that tick every 1, k, k^2... readings; their outputs lie side by side.

    A slower cell reads the mean of the inputs since its last tick, so that no reading is lost on it, and between ticks
    its state and output stay. In a clockwork RNN the modules share one matrix, a slow module reads only the input at
    its tick, and the fast ones read the slow ones' states; here they meet only in what comes behind.

    The state holds the cells' states, the sum of the inputs that each slower cell waits with, and one counter. It wraps
    when the slowest cell ticks, so it is exact for ever. Each row of a batch has its own.
    """

    def __init__(self, cell: Callable[[int], Cell], inputs: int, scales: int, factor: int) -> None:
        """`cell` makes a cell for a number of inputs. Raises ValueError when the slowest is too slow to be counted."""
        super().__init__()
        self.periods = [factor**scale for scale in range(scales)]
        if self.periods[-1] > SLOWEST:
            raise ValueError(f"{scales} scales of factor {factor}: one would wait for more than {SLOWEST} readings")
        self.parts = nn.ModuleList(cell(inputs) for _ in range(scales))
        self.input_size = inputs
        self.output_size = sum(part.output_size for part in self.cells)
        self.sizes = [part.state_size for part in self.cells] + [inputs] * (scales - 1) + [1]
        self.state_size = sum(self.sizes)

    @property
    def cells(self) -> list[Cell]:
        """The fastest first."""
        return list(self.parts)  # type: ignore[arg-type]  # a ModuleList forgets what its modules are

    def initial_state(self, n: int) -> Tensor:
        """(n, S)."""
        states = [cell.initial_state(n) for cell in self.cells]
        return torch.cat([*states, states[0].new_zeros(n, self.state_size - sum(part.shape[1] for part in states))], 1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.step`."""
        states, sums, counter = self._split(state)
        for scale, (cell, period) in enumerate(zip(self.cells, self.periods, strict=True)):
            if period == 1:
                _, states[scale] = cell.step(x, states[scale])
                continue
            phase = counter.remainder(period)
            ticks = phase == period - 1
            waiting = sums[scale - 1] + x
            _, moved = cell.step(waiting / (phase + 1), states[scale])
            states[scale] = torch.where(ticks, moved, states[scale])
            sums[scale - 1] = torch.where(ticks, 0.0, waiting)
        outputs = [part[:, : cell.output_size] for cell, part in zip(self.cells, states, strict=True)]
        return torch.cat(outputs, 1), torch.cat([*states, *sums, self._count(counter, 1)], 1)

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Block.unroll`. A slower cell is advanced once a tick, not once a reading."""
        states, sums, counter = self._split(state)
        outputs = []
        for scale, (cell, period) in enumerate(zip(self.cells, self.periods, strict=True)):
            if period == 1:
                seen, states[scale] = cell.unroll(x, states[scale])
            else:
                phase = counter[:, 0].nan_to_num().remainder(period).long()  # a broken row may not break others
                seen, states[scale], sums[scale - 1] = _ticks(
                    cell, period, x, states[scale], phase=phase, waiting=sums[scale - 1]
                )
            outputs.append(seen)
        return torch.cat(outputs, 2), torch.cat([*states, *sums, self._count(counter, len(x))], 1)

    def gates(self, x: Tensor, state: Tensor) -> dict[str, Tensor]:
        """See `Block.gates`; of a cell that does not tick now: what they would be if it did."""
        states, sums, counter = self._split(state)
        found = []
        for cell, period, part, waiting in zip(
            self.cells, self.periods, states, [torch.zeros_like(x), *sums], strict=True
        ):
            found.append(cell.gates((waiting + x) / (counter.remainder(period) + 1), part))
        return merge(found)

    def _split(self, state: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Each cell's state, each slower cell's sum of inputs, and the counter (n, 1)."""
        *parts, counter = torch.split(state, self.sizes, 1)
        return parts[: len(self.periods)], parts[len(self.periods) :], counter

    def _count(self, counter: Tensor, readings: int) -> Tensor:
        return torch.remainder(counter + readings % self.periods[-1], self.periods[-1])


def _ticks(
    cell: Cell, period: int, x: Tensor, state: Tensor, *, phase: Tensor, waiting: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x (T, n, D) through a cell that ticks every `period` readings, of which `phase` (n,) were seen before.

    -> outputs (T, n, H), state (n, S), the new `waiting` (n, D): the sum of what was seen since the last tick.
    """
    time, n, _ = x.shape
    at = torch.arange(time, device=x.device)[:, None] + phase  # (T, n), counted from the last tick before
    most = (time + period - 1) // period  # ticks of any row; of the last one a row may have a part only
    sums = x.new_zeros(most + 1, n, x.shape[2]).scatter_add(0, (at // period)[..., None].expand_as(x), x)
    sums = torch.cat([sums[:1] + waiting, sums[1:]])
    states = [state]
    for projected in cell.project(sums[:-1] / period).unbind():
        states.append(cell.advance(projected, states[-1]))
    every = torch.stack(states)  # (ticks + 1, n, S); a row takes only what follows its whole ticks
    done = (at + 1) // period
    series = torch.arange(n, device=x.device)
    last = done[-1]
    return every[..., : cell.output_size][done, series], every[last, series], sums[last, series]
