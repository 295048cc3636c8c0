"""What every network must do, whatever it is made of: each cell, each named variant, combinations, any at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stream_gru.models.block import Block
from stream_gru.models.cells import cells
from stream_gru.models.network import VARIANTS, Network, compose

INPUTS, SERIES, TIME = 5, 4, 24
WINDOW = 6  # at most, so that rings go round within TIME


def small(network: Network) -> Network:
    """The same techniques, quick to compute."""
    windows = ("convolution", "attention", "transformer", "bidirectional")
    smaller: dict[str, Any] = {name: min(getattr(network, name), WINDOW) for name in windows}
    return network.model_copy(update={"hidden": 8, "heads": 2, **smaller})


COMBINATIONS = {
    "deep": Network(layers=2, residual=True, norm="layer", zoneout=0.1, dropout=0.1, convolution=3, attention=8),
    "deep-batch": Network(cells=("lstm",), layers=3, residual=True, norm="batch", zoneout=0.2, transformer=8),
    "both-looks": Network(cells=("rnn",), attention=4, transformer=8, dropout=0.2),
    "scales": Network(cells=("lstm",), layers=2, scales=3, scale_factor=2, norm="layer", zoneout=0.1, convolution=2),
    "both-ways": Network(cells=("lstm", "rnn"), bidirectional=4, layers=2, residual=True, zoneout=0.1),
    "wide": Network(cells=("gru", "lstm", "rnn"), layers=2, norm="batch", attention=4, scales=2, scale_factor=3),
}
NETWORKS = {
    **{f"cell {name}": Network(cells=(name,)) for name in cells()},
    **{f"variant {name}": network for name, network in VARIANTS.items()},
    **{f"combination {name}": network for name, network in COMBINATIONS.items()},
}


def drawn(network: Network) -> Block:
    """As after some training: no weight is 0, batch norm has seen something. In inference."""
    torch.manual_seed(0)
    block = compose(network, INPUTS)
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.3)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm1d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return block.eval()


@pytest.fixture(params=sorted(NETWORKS))
def block(request: pytest.FixtureRequest) -> Block:
    return drawn(small(NETWORKS[request.param]))


def inputs(time: int = TIME) -> Tensor:
    return torch.randn(time, SERIES, INPUTS)


def steps(block: Block, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One after another, as it is served."""
    return Block.unroll(block, x, state)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_shapes(block: Block) -> None:
    state = block.initial_state(SERIES)
    assert block.input_size == INPUTS
    for _ in range(2 * WINDOW):
        output, state = block.step(torch.randn(SERIES, INPUTS), state)
        assert output.shape == (SERIES, block.output_size)
        assert state.shape == (SERIES, block.state_size)
        assert output.dtype == state.dtype == torch.float32
    outputs, state = block.unroll(inputs(), state)
    assert outputs.shape == (TIME, SERIES, block.output_size)
    assert state.shape == (SERIES, block.state_size)
    assert outputs.dtype == state.dtype == torch.float32


@torch.no_grad()
def test_a_step_for_no_series(block: Block) -> None:
    output, state = block.step(torch.empty(0, INPUTS), block.initial_state(0))
    assert (len(output), len(state)) == (0, 0)


@torch.no_grad()
def test_unroll_is_step_after_step(block: Block) -> None:
    x = inputs()
    outputs, last = block.unroll(x, block.initial_state(SERIES))
    expected, end = steps(block, x, block.initial_state(SERIES))
    close(outputs, expected)
    close(last, end)


@torch.no_grad()
def test_unroll_in_two_parts_is_unroll(block: Block) -> None:
    x = inputs()
    whole, last = block.unroll(x, block.initial_state(SERIES))
    for cut in (1, 2, 5, 6, 9, TIME - 1):
        first, state = block.unroll(x[:cut], block.initial_state(SERIES))
        second, end = block.unroll(x[cut:], state)
        close(torch.cat([first, second]), whole)
        close(end, last)


@torch.no_grad()
def test_the_whole_memory_is_in_the_bytes_of_the_state(block: Block) -> None:
    x = inputs()
    whole, _ = steps(block, x, block.initial_state(SERIES))
    _, state = steps(block, x[:7], block.initial_state(SERIES))
    steps(block, inputs(), torch.randn(SERIES, block.state_size).abs().floor())  # others are served in between
    stored = torch.frombuffer(bytearray(state.numpy().tobytes()), dtype=torch.float32).view(SERIES, -1)
    rest, _ = steps(block, x[7:], stored)
    close(rest, whole[7:])


@torch.no_grad()
def test_series_do_not_see_each_other(block: Block) -> None:
    x = inputs()
    for run in (block.unroll, lambda x, state: steps(block, x, state)):
        outputs, last = run(x, block.initial_state(SERIES))
        alone, end = run(x[:, :1], block.initial_state(1))
        close(alone[:, 0], outputs[:, 0])
        close(end[0], last[0])
        beside, state = x.clone(), block.initial_state(SERIES).clone()
        beside[:, 1:] = torch.nan
        state[1:] = torch.nan
        ill, end = run(beside, state)
        close(ill[:, 0], outputs[:, 0])
        close(end[0], last[0])


@torch.no_grad()
def test_the_future_is_not_seen(block: Block) -> None:
    x = inputs()
    outputs, _ = block.unroll(x, block.initial_state(SERIES))
    for now in (1, 9, TIME - 1):
        other = x.clone()
        other[now:] = 5 * torch.randn_like(other[now:])
        changed, _ = block.unroll(other, block.initial_state(SERIES))
        close(changed[:now], outputs[:now])
        assert (changed[now] - outputs[now]).abs().max() > 1e-4  # but the present is


@torch.no_grad()
def test_what_is_given_is_not_written_into(block: Block) -> None:
    _, state = block.unroll(inputs(), block.initial_state(SERIES))
    x = inputs()
    before = x.clone(), state.clone()
    weights = {name: value.clone() for name, value in block.state_dict().items()}
    block.step(x[0], state)
    block.unroll(x, state)
    block.gates(x[0], state)
    assert torch.equal(x, before[0])
    assert torch.equal(state, before[1])
    assert all(torch.equal(value, weights[name]) for name, value in block.state_dict().items())


@torch.no_grad()
def test_gates_are_shares_and_asking_for_them_changes_nothing(block: Block) -> None:
    x = inputs()
    _, state = block.unroll(x[:-1], block.initial_state(SERIES))
    output, moved = block.step(x[-1], state)
    gates = block.gates(x[-1], state)
    for name, values in gates.items():
        assert values.ndim == 2, name
        assert len(values) == SERIES, name
        assert ((values >= 0) & (values <= 1)).all(), name
        assert values.std() > 0, name
    again, last = block.step(x[-1], state)
    assert torch.equal(again, output)
    assert torch.equal(last, moved)


@torch.no_grad()
def test_extreme_inputs_stay_finite(block: Block) -> None:
    x = torch.full((100, SERIES, INPUTS), 1e4)
    x[::2] = -1e4
    for run in (block.unroll, lambda x, state: steps(block, x, state)):
        outputs, state = run(x, block.initial_state(SERIES))
        assert outputs.isfinite().all()
        assert state.isfinite().all()


def test_every_weight_learns(block: Block) -> None:
    block.train()
    outputs, _ = block.unroll(inputs(2 * TIME), block.initial_state(SERIES))
    torch.autograd.backward((outputs * torch.randn_like(outputs)).sum())
    for name, weight in block.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().max() > 1e-6, name


def test_a_step_and_unroll_have_the_same_gradients(block: Block) -> None:
    x, factors = inputs(), torch.randn(TIME, SERIES, block.output_size)
    found = []
    for run in (block.unroll, lambda x, state: steps(block, x, state)):
        outputs, _ = run(x, block.initial_state(SERIES))
        found.append(torch.autograd.grad((outputs * factors).sum(), list(block.parameters())))
    for (name, _), one, other in zip(block.named_parameters(), *found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-6, msg=name)


def test_mixed_precision_keeps_the_state_in_single(block: Block) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, state = block.train().unroll(inputs(), block.initial_state(SERIES))
    assert state.dtype == torch.float32
    torch.autograd.backward(outputs.float().sum())
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in block.parameters())


@st.composite
def networks(draw: st.DrawFn) -> Network:
    return Network.model_validate(
        {
            "cells": draw(st.lists(st.sampled_from(sorted(cells())), min_size=1, max_size=2)),
            "hidden": draw(st.sampled_from([2, 4])),
            "layers": draw(st.integers(1, 3)),
            "dropout": draw(st.sampled_from([0, 0.3])),
            "zoneout": draw(st.sampled_from([0, 0.3])),
            "norm": draw(st.sampled_from(["none", "layer", "batch"])),
            "residual": draw(st.booleans()),
            "convolution": draw(st.sampled_from([0, 1, 3])),
            "attention": draw(st.sampled_from([0, 1, 5])),
            "transformer": draw(st.sampled_from([0, 1, 5])),
            "heads": draw(st.sampled_from([1, 2])),
            "scales": draw(st.integers(1, 3)),
            "scale_factor": draw(st.integers(2, 3)),
            "bidirectional": 0,
        }
        | draw(st.sampled_from([{}, {"scales": 1, "bidirectional": 1}, {"scales": 1, "bidirectional": 4}]))
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.integers(1, 11), st.integers(1, 12))
@torch.no_grad()
def test_any_network_steps_as_it_unrolls(network: Network, before: int, time: int) -> None:
    block = drawn(network)
    _, state = block.unroll(inputs(before), block.initial_state(SERIES))
    x = inputs(time)
    outputs, last = block.unroll(x, state)
    expected, end = steps(block, x, state)
    close(outputs, expected)
    close(last, end)
    assert Network.model_validate_json(network.model_dump_json()) == network
