"""What every cell must do. The modules of `stream_gru.models` that have a CELL are found by themselves."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn

from stream_gru import models
from stream_gru.models import Cell

INPUTS, HIDDEN, SERIES, TIME = 5, 8, 6, 20


@pytest.fixture(params=sorted(models.cells()))
def cell(request: pytest.FixtureRequest) -> Cell:
    torch.manual_seed(0)
    return models.cell(request.param)(INPUTS, HIDDEN)


def test_there_are_cells() -> None:
    assert "gru" in models.cells()


def test_shapes(cell: Cell) -> None:
    state = cell.initial_state(SERIES)
    assert state.shape == (SERIES, cell.state_size)
    output, state = cell.step(torch.randn(SERIES, INPUTS), state)
    assert output.shape == (SERIES, cell.output_size)
    assert state.shape == (SERIES, cell.state_size)
    assert state.dtype == output.dtype == torch.float32


@torch.no_grad()
def test_unroll_is_step_after_step(cell: Cell) -> None:
    x = torch.randn(TIME, SERIES, INPUTS)
    outputs, last = cell.unroll(x, cell.initial_state(SERIES))
    state = cell.initial_state(SERIES)
    for t in range(TIME):
        output, state = cell.step(x[t], state)
        torch.testing.assert_close(output, outputs[t], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_whole_memory_is_in_the_state(cell: Cell) -> None:
    x = torch.randn(TIME, SERIES, INPUTS)
    whole, _ = cell.unroll(x, cell.initial_state(SERIES))
    _, state = cell.unroll(x[:7], cell.initial_state(SERIES))
    stored = torch.frombuffer(bytearray(state.numpy().tobytes()), dtype=torch.float32).view(SERIES, -1)
    rest, _ = cell.unroll(x[7:], stored)
    torch.testing.assert_close(rest, whole[7:], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_series_do_not_see_each_other(cell: Cell) -> None:
    x = torch.randn(TIME, SERIES, INPUTS)
    outputs, _ = cell.unroll(x, cell.initial_state(SERIES))
    x[:, 1:] = torch.nan
    alone, _ = cell.unroll(x, cell.initial_state(SERIES))
    torch.testing.assert_close(alone[:, 0], outputs[:, 0], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_step_does_not_write_into_what_it_is_given(cell: Cell) -> None:
    x, state = torch.randn(SERIES, INPUTS), cell.initial_state(SERIES).clone() + 0.1
    before = x.clone(), state.clone()
    cell.step(x, state)
    assert torch.equal(x, before[0])
    assert torch.equal(state, before[1])


@torch.no_grad()
def test_extreme_inputs_stay_finite(cell: Cell) -> None:
    x = torch.full((200, SERIES, INPUTS), 8.0)
    x[::2] = -8
    outputs, state = cell.unroll(x, cell.initial_state(SERIES))
    assert outputs.isfinite().all()
    assert state.isfinite().all()


def test_every_weight_learns(cell: Cell) -> None:
    outputs, _ = cell.unroll(torch.randn(TIME, SERIES, INPUTS), cell.initial_state(SERIES))
    outputs.square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for name, weight in cast(nn.Module, cell).named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name
