"""Cells that tick at different rates: when, what they read, and in which phase each series is."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from stream_gru.models.block import Block
from stream_gru.models.blocks.group import merge
from stream_gru.models.blocks.multi_scale import MultiScale
from stream_gru.models.cells import Cell
from stream_gru.models.cells.gru import GRU
from stream_gru.models.cells.lstm import LSTM
from stream_gru.models.cells.rnn import RNN
from stream_gru.models.network import Network, compose

INPUTS, HIDDEN, SERIES, TIME = 5, 8, 6, 40


def inputs(time: int = TIME) -> Tensor:
    return torch.randn(time, SERIES, INPUTS)


def scales(cell: type[Cell] = GRU, count: int = 3, factor: int = 3) -> MultiScale:
    return MultiScale(lambda width: cell(width, HIDDEN), INPUTS, count, factor).eval()


@torch.no_grad()
@pytest.mark.parametrize("cell", [GRU, LSTM])
def test_a_slow_cell_reads_the_mean_at_each_multiple_and_stays_between(cell: type[Cell]) -> None:
    block, x = scales(cell), inputs()
    outputs, _ = block.unroll(x, block.initial_state(SERIES))
    for scale, part in enumerate(outputs.chunk(3, 2)):
        period = 3**scale
        slow = block.cells[scale]
        state = slow.initial_state(SERIES)
        now = state[:, :HIDDEN]
        for t in range(TIME):
            if (t + 1) % period == 0:
                now, state = slow.step(x[t + 1 - period : t + 1].mean(0), state)
            torch.testing.assert_close(part[t], now, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_rows_of_different_phases() -> None:
    """Series that began at different times in one batch are as they are alone, by steps and by unroll."""
    block, x = scales(), inputs(60)
    alone = [block.unroll(x[row:, row : row + 1], block.initial_state(1))[0][-20:, 0] for row in range(SERIES)]
    state = torch.cat([block.unroll(x[row:-20, row : row + 1], block.initial_state(1))[1] for row in range(SERIES)])
    assert len(set(state[:, -1].tolist())) == SERIES
    for unroll in (block.unroll, lambda x, state: Block.unroll(block, x, state)):
        outputs, _ = unroll(x[-20:], state)
        torch.testing.assert_close(outputs, torch.stack(alone, 1), rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("time", [1, 2, 3, 8, 9, 10])
def test_unroll_is_step_after_step_from_any_phase(time: int) -> None:
    block = scales(LSTM)
    x, state = inputs(9 + time), block.initial_state(SERIES)
    for before in x[:9]:
        outputs, last = block.unroll(x[9:], state)
        expected, end = Block.unroll(block, x[9:], state)
        torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(last, end, rtol=1e-5, atol=1e-6)
        _, state = block.step(before, state)


@torch.no_grad()
def test_the_counter_wraps_with_the_slowest() -> None:
    block = scales()
    state, counts = block.initial_state(1), []
    for _ in range(20):
        _, state = block.step(torch.randn(1, INPUTS), state)
        counts.append(int(state[0, -1]))
    assert counts == [(t + 1) % 9 for t in range(20)]
    _, state = block.unroll(torch.randn(100, 1, INPUTS), state)
    assert int(state[0, -1]) == 120 % 9


@torch.no_grad()
def test_the_longest_count_is_exact() -> None:
    block = MultiScale(lambda width: RNN(width, 1), 1, 7, 16)  # 16^6 = 2^24: what float32 counts up to
    state = block.initial_state(1)
    state[:, -1] = 2**24 - 1
    _, after = block.step(torch.zeros(1, 1), state)
    assert after[0, -1] == 0
    _, after = block.unroll(torch.zeros(3, 1, 1), state)
    assert after[0, -1] == 2


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="16777216 readings"):
        MultiScale(lambda width: RNN(width, 1), 1, 8, 16)
    with pytest.raises(ValidationError, match="16777216 readings"):
        Network(scales=8, scale_factor=16)


@torch.no_grad()
def test_gates_of_all_scales() -> None:
    block, x = scales(), inputs()
    _, state = block.unroll(x[:26], block.initial_state(SERIES))  # all tick at the next one
    before = torch.split(state, block.sizes, 1)
    gates = block.gates(x[26], state)
    expected = merge(cell.gates(x[27 - 3**scale : 27].mean(0), before[scale]) for scale, cell in enumerate(block.cells))
    assert set(gates) == {"update", "reset"}
    for name, values in gates.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-6)


def test_a_network_has_as_many_cells_as_scales() -> None:
    network = compose(Network(hidden=HIDDEN, scales=4, scale_factor=2), INPUTS)
    assert isinstance(network, MultiScale)
    assert network.periods == [1, 2, 4, 8]
    assert network.output_size == 4 * HIDDEN
