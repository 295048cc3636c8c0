"""What a model costs: parameters, bytes, and time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from stream_gru import features
from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle
from stream_gru.models.bundle import Description
from stream_gru.models.network import Network, compose
from stream_gru.training.comparison import cost
from tests.support.comparing import NETWORKS, batch, waves


@pytest.mark.parametrize(("inputs", "hidden"), [(1, 1), (5, 3), (27, 64)])
def test_parameters_are_those_of_the_equations(inputs: int, hidden: int) -> None:
    def count(cell: str) -> int:
        return cost.cell_parameters(compose(Network(cells=(cell,), hidden=hidden), inputs))

    one_gate = hidden * (inputs + hidden) + hidden  # W, U, b
    start = hidden
    assert count("rnn") == one_gate + start
    assert count("gru") == 3 * one_gate + hidden + start  # a bias for x and one for h in the candidate
    assert count("lstm") == 4 * one_gate + 2 * start  # h and c


def test_parameters_of_a_cell_inside_another_count_once_and_heads_do_not() -> None:
    plain, zoned = Network(hidden=6), Network(hidden=6, zoneout=0.2, norm="layer")
    assert cost.cell_parameters(compose(zoned, 9)) == cost.cell_parameters(compose(plain, 9))
    forecaster = bundle.build(Description(name="x", network=plain, horizons=(3,)))
    head = (6 + 1) * 2 * (features.Light.anchors + 3)
    assert cost.parameters(forecaster) == cost.cell_parameters(forecaster) + head


def test_sizes_are_those_of_the_files_and_rows(tmp_path: Path) -> None:
    description = Description(name="x", network=NETWORKS["lstm"], horizons=(3,))
    forecaster = bundle.build(description)
    size = cost.size(description, forecaster, batch(waves(), description))
    bundle.save(tmp_path, description, forecaster)
    assert size.megabytes == (tmp_path / "weights.safetensors").stat().st_size / 1e6
    assert size.row == Stepper(tmp_path, capacity=1, device="cpu").layout.row_bytes
    assert size.state == 2 * 8 * 4
    assert size.training > 16 * size.parameters


def test_a_longer_chunk_keeps_more_for_the_backward_pass() -> None:
    description = Description(name="x", network=NETWORKS["gru"], horizons=(3,))
    forecaster = bundle.build(description)
    short, long = (cost.activations(forecaster, batch(waves(), description, 4, n)) for n in (20, 40))
    assert short > 20 * 4 * 8 * 4  # at least the states
    assert 1.8 < long / short < 2.2


def test_models_take_turns_and_short_tasks_are_repeated() -> None:
    calls: list[str] = []
    now = 0.0

    def task(name: str) -> cost.Task:
        return lambda: calls.append(name)

    def tick() -> float:
        nonlocal now
        now += 1.0
        return now

    seconds = cost.interleaved({"a": task("a"), "b": task("b")}, 3, tick)
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3}
    assert max(seconds["a"] + seconds["b"]) < 1  # a tick a measurement, over many repeats
    order = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    assert order == ["a", "b", "a", "b", "a", "b"]  # found out, then a b, b a, a b


def test_time_that_other_processes_take_does_not_count_where_it_can_be_told() -> None:
    assert cost.clock("cpu", 1) is time.process_time
    assert cost.clock("cpu", 2) is time.perf_counter
    assert cost.clock("cuda", 1) is time.perf_counter


def test_a_timed_training_step_learns_and_a_streaming_step_steps() -> None:
    description = Description(name="x", network=NETWORKS["gru"], horizons=(3,))
    forecaster = bundle.build(description)
    before = [weight.detach().clone() for weight in forecaster.parameters()]
    cost.training_step(forecaster, batch(waves(), description))()
    assert any(not torch.equal(a, b) for a, b in zip(before, forecaster.parameters(), strict=True))
    for n in (1, 5):
        cost.streaming_step(forecaster, n)()
        step = cost.engine_step(description, forecaster, n)
        step()
        step()
