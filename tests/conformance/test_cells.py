"""What every cell must do beyond what every network does. Each file of `models.cells` with a CELL is tested."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from stream_gru.errors import BundleError
from stream_gru.models.blocks.zoneout import Zoneout
from stream_gru.models.cells import Cell, Scheme, cells, find

INPUTS, HIDDEN, SERIES, TIME = 5, 8, 6, 20


@pytest.fixture(params=sorted(cells()))
def cell(request: pytest.FixtureRequest) -> Cell:
    torch.manual_seed(0)
    return cells()[request.param](INPUTS, HIDDEN)


def test_there_are_cells() -> None:
    assert {"gru", "lstm", "rnn"} <= set(cells())


def test_a_cell_is_found_by_the_name_of_its_file() -> None:
    assert all(find(name) is cell for name, cell in cells().items())
    with pytest.raises(BundleError, match=r"no cell 'mru'; there are gru, lstm, rnn"):
        find("mru")


@torch.no_grad()
def test_the_output_is_the_beginning_of_the_state(cell: Cell) -> None:
    assert (cell.input_size, cell.output_size) == (INPUTS, HIDDEN)
    output, state = cell.step(torch.randn(SERIES, INPUTS), cell.initial_state(SERIES))
    assert state.shape == (SERIES, cell.state_size)
    assert torch.equal(output, state[:, :HIDDEN])


@torch.no_grad()
def test_a_step_is_its_two_parts(cell: Cell) -> None:
    x, state = torch.randn(TIME, SERIES, INPUTS), torch.randn(SERIES, cell.state_size)
    projected = cell.project(x)
    torch.testing.assert_close(projected[3], cell.project(x[3]), rtol=0, atol=1e-6)
    torch.testing.assert_close(cell.step(x[3], state)[1], cell.advance(projected[3], state), rtol=0, atol=1e-6)
    gates, parts = cell.gates(x[3], state), cell.activations(projected[3], state)
    assert gates.keys() == parts.keys()
    for name, values in gates.items():
        assert values.shape == (SERIES, HIDDEN)
        torch.testing.assert_close(values, parts[name], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("scheme", ["orthogonal", "uniform"])
def test_initialise_draws_every_weight_anew(cell: Cell, scheme: Scheme) -> None:
    drawn = []
    for _ in range(2):
        for weight in cell.parameters():
            nn.init.constant_(weight, 7.0)
        cell.initialise(scheme)
        assert all((weight.abs() < 7).all() for weight in cell.parameters())
        assert not cell.start.any()  # a series begins with nothing
        drawn.append({name: weight.clone() for name, weight in cell.named_parameters()})
    for one, other in pairwise(drawn):
        matrices = [name for name, weight in one.items() if weight.ndim == 2]
        assert matrices
        assert not any(torch.equal(one[name], other[name]) for name in matrices)


@torch.no_grad()
def test_it_zones_out(cell: Cell) -> None:
    """What stands around cells needs nothing of them but the contract."""
    x, state = torch.randn(SERIES, INPUTS), torch.randn(SERIES, cell.state_size)
    never, always = Zoneout(cell, 0.0), Zoneout(cell, 1.0)
    torch.testing.assert_close(never.step(x, state)[1], cell.step(x, state)[1])
    assert torch.equal(always.step(x, state)[1], state)


def test_the_state_is_remembered_at_first(cell: Cell) -> None:
    """As drawn, a gradient reaches back many steps: that is what the biases and the orthogonal weights are for."""
    x = torch.zeros(TIME, SERIES, INPUTS, requires_grad=True)
    outputs, _ = cell.unroll(x, cell.initial_state(SERIES))
    (gradient,) = torch.autograd.grad(outputs[-1].sum(), x)
    assert gradient[0].abs().max() > 1e-4 * gradient[-1].abs().max()
