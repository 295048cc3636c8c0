from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from stream_gru import features
from stream_gru.cli import app
from stream_gru.engine.engine import Engine
from stream_gru.errors import BundleError
from stream_gru.models import bundle
from stream_gru.models.block import Block
from stream_gru.models.bundle import Description
from stream_gru.models.cells.gru import GRU
from stream_gru.models.network import VARIANTS, Network, compose
from stream_gru.training import compare, data
from stream_gru.training.comparison import claims, cost, skill, table
from stream_gru.training.comparison.reach import reach, sensitivity
from stream_gru.training.comparison.results import Model, Results, Trial
from stream_gru.training.fit import Fitted, fit
from stream_gru.training.objective import evaluate
from stream_gru.training.prepare import Prepared, prepare
from stream_gru.training.recipe import Recipe

HOUR_MS = 3_600_000
NETWORKS = {cell: Network(cells=(cell,), hidden=8) for cell in ("gru", "lstm", "rnn")}
SMALL = Recipe.model_validate(
    {
        "horizons": [3],
        "network": {"hidden": 8},
        "data": {"length": 64, "batch": 4},
        "plan": {"chunk": 32, "steps": 2, "warm_up": 1},
    }
)


def waves(readings: int = 700, series: int = 2) -> data.History:
    """Days of 24 readings, noisy."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(readings) / 24
    return data.History(
        [
            data.Series(np.arange(readings) * HOUR_MS, np.sin(angle + i) + 0.1 * rng.normal(size=readings), name=str(i))
            for i in range(series)
        ]
    )


def batch(history: data.History, description: Description, n: int = 4, length: int = 32) -> Prepared:
    windows = data.Recorded(history, SMALL.data).draw(n, length, np.random.default_rng(0))
    return prepare(windows, description)


# What it costs


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
    assert size.row == Engine(tmp_path, capacity=1, device="cpu").layout.row_bytes
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


# How far back it reaches


class Decay(Block):
    """h' = rate h + x: a linear recurrent network of one unit, which forgets at a known rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.input_size = self.state_size = self.output_size = 1
        self.rate = rate

    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.rate * state + x
        return state, state


def test_a_linear_network_reaches_as_far_as_its_rate_says() -> None:
    curve = sensitivity(Decay(0.9), torch.randn(150, 5, 1), farthest=100)
    np.testing.assert_allclose(curve, 0.9 ** np.arange(101), rtol=1e-4)
    assert reach(curve) == 43  # 0.9^43 = 1.08%, 0.9^44 = 0.97%


def test_a_short_stretch_tells_less() -> None:
    assert len(sensitivity(Decay(0.5), torch.randn(20, 2, 1), farthest=100)) == 20


def test_an_echo_counts_from_where_it_comes() -> None:
    assert reach([0.1, 1.0, 0.001, 0.5, 0.009]) == 3
    assert reach([1.0, 0.5, 0.25]) == 2


@pytest.mark.parametrize(("bias", "least", "most"), [(10.0, 200, 200), (-10.0, 0, 8)])
def test_an_update_gate_that_keeps_reaches_far_and_one_that_replaces_does_not(
    bias: float, least: int, most: int
) -> None:
    torch.manual_seed(0)
    cell = GRU(3, 8)
    with torch.no_grad():
        cell.input_bias[8:16] = bias
    far = reach(sensitivity(cell, torch.randn(260, 4, 3)))
    assert least <= far <= most


def test_the_reach_is_that_of_inference() -> None:
    torch.manual_seed(0)
    network = compose(Network(hidden=8, dropout=0.9), 3)
    x = torch.randn(60, 4, 3)
    first, again = (sensitivity(network, x, farthest=30) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert network.training


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_a_cost_and_a_reach(name: str) -> None:
    torch.manual_seed(0)
    network = VARIANTS[name].model_copy(update={"hidden": 8})
    curve = sensitivity(compose(network, 3), torch.randn(24, 3, 3), farthest=20, looks=2)
    assert np.isfinite(curve).all()
    assert curve[0] > 0
    description = Description(name="x", network=network, horizons=(3,))
    forecaster = bundle.build(description)
    assert cost.activations(forecaster, batch(waves(), description, 2, 16)) > 0
    assert 0 < cost.cell_parameters(forecaster) < cost.parameters(forecaster)
    cost.streaming_step(forecaster, 2)()


# How good it is, by the readings seen


def test_errors_by_the_readings_seen() -> None:
    target = torch.randn(2, 200, 6)
    medians = torch.where(torch.arange(200)[:, None] >= 99, target, 0.5 * target)
    errors = skill.by_position(medians, target, (10, 50, 100, 1000))
    assert errors == {10: pytest.approx(0.5), 50: pytest.approx(0.5), 100: pytest.approx(1e-3)}


def test_series_count_alike_whatever_their_size_and_what_is_unknown_does_not() -> None:
    torch.manual_seed(0)
    target = torch.randn(1, 60, 2)
    medians = torch.stack([target[..., 0] * 0.2, target[..., 1] * 0.8], -1)
    scale = torch.tensor([1.0, 1e4])
    same, larger = (skill.by_position(medians * s, target * s, (20,))[20] for s in (torch.ones(2), scale))
    assert larger == pytest.approx(same, rel=1e-4)
    medians[0, 21, 0] = 1e6
    target[0, 21, 0] = torch.nan
    assert skill.by_position(medians, target, (20,))[20] == pytest.approx(same, rel=0.3)
    flat = torch.cat([target, torch.zeros(1, 60, 1)], -1)
    assert skill.by_position(torch.cat([medians, torch.ones(1, 60, 1)], -1), flat, (20,))[20] < 1


# What is said of it


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [
        ((12, 11, 14), "reproduced"),
        ((12, 9, 14), "undecided"),
        ((20, 16, 24), "refuted"),
        ((20, 14, 26), "undecided"),
        ((5, 4, 9.9), "refuted"),
    ],
)
def test_a_number_is_in_a_range_out_of_it_or_unsure(estimate: tuple[float, float, float], verdict: str) -> None:
    assert claims.within(claims.Estimate(*estimate), 10, 15) == verdict


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([0.80, 0.81, 0.79], [0.90, 0.91, 0.89], "reproduced"),
        ([0.90, 0.91, 0.89], [0.80, 0.81, 0.79], "refuted"),
        ([0.80, 0.90, 0.85], [0.86, 0.84, 0.88], "undecided"),
        ([0.80, 0.81], [0.90, 0.91], "undecided"),
        ([0.5], [0.9], "undecided"),
        ([0.8, 0.8, 0.8], [0.8, 0.8, 0.8], "undecided"),
    ],
)
def test_a_winner_needs_seeds_that_agree(first: list[float], second: list[float], verdict: str) -> None:
    assert claims.lower(first, second) == verdict


def test_a_median_has_the_interval_of_its_ranks() -> None:
    assert claims.of_rounds([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    estimate = claims.of_rounds(range(100))
    assert (estimate.low, estimate.high) == (40, 60)
    noisy = np.random.default_rng(0).normal(size=(300, 31))
    covered = [e.low <= 0 <= e.high for e in map(claims.of_rounds, noisy.tolist())]
    assert 0.9 < np.mean(covered) <= 1


def test_speed_is_judged_by_rounds() -> None:
    lstm = np.linspace(1.0, 2.0, 31)  # a machine that slows down meets both
    assert claims.faster("x", (lstm * 0.88).tolist(), lstm.tolist()).verdict == "reproduced"
    assert claims.faster("x", (lstm * 0.60).tolist(), lstm.tolist()).verdict == "refuted"
    assert "40% less time" in claims.faster("x", (lstm * 0.60).tolist(), lstm.tolist()).measured
    slower = claims.faster("x", (lstm * 1.30).tolist(), lstm.tolist())
    assert slower.verdict == "refuted"
    assert "30% more time" in slower.measured
    noise = np.random.default_rng(0).uniform(0.5, 1.5, 31)
    assert claims.faster("x", noise.tolist(), noise[::-1].tolist()).verdict == "undecided"


def made_up(errors: dict[str, list[float]], reaches: dict[str, list[int]]) -> Results:
    models = {
        cell: Model(
            NETWORKS[cell],
            cost.Size(parameters, parameters, 0.1, 32, 400, 1_000_000),
            [seconds] * 9,
            {1: [seconds] * 9},
            {1: [seconds] * 9},
        )
        for cell, parameters, seconds in (("gru", 750, 0.87), ("lstm", 1000, 1.0), ("rnn", 250, 0.3))
    }
    results = Results(models, {0.1: 100, 1.0: 1000}, 200, 2, (1, 3), 200)
    for share in results.shares:
        for model, by_seed in errors.items():
            for seed, error in enumerate(by_seed):
                positions = dict.fromkeys(skill.POSITIONS, error)
                one = Trial(model, seed, share, 9.0, 5, [error] * 2, [0.9] * 2, positions, reaches[model][seed], 3, [])
                results.trials.append(one)
    return results


def test_claims_of_made_up_results() -> None:
    results = made_up(
        {"gru": [0.70, 0.71, 0.69], "lstm": [0.80, 0.81, 0.79], "rnn": [0.90, 0.91, 0.89]},
        {"gru": [60, 70, 80], "lstm": [200, 200, 200], "rnn": [5, 6, 4]},
    )
    verdicts = {claim.claim: claim.verdict for claim in claims.judge(results)}
    assert verdicts == {
        "a GRU's cell has 25% fewer parameters than an LSTM's": "reproduced",
        "a GRU's whole model has 25% fewer parameters than an LSTM's": "reproduced",
        "a GRU is 10-15% faster than an LSTM in training": "reproduced",
        "a GRU is 10-15% faster than an LSTM in a step of 1 series": "reproduced",
        "the gru remembers 50-100 steps": "reproduced",
        "the lstm remembers 50-100 steps": "refuted",
        "the rnn remembers fewer than 10 steps": "reproduced",
        "the GRU wins early in a series (after 10, 25, 50 readings)": "reproduced",
        "the LSTM wins late in a series (after 250, 1000)": "refuted",
        "the GRU wins on small data (10% of it, 100 readings)": "reproduced",
        "the LSTM wins on large data (1,000 readings)": "refuted",
        "gates win over a plain RNN late in a series": "reproduced",
    }
    reversed_ = made_up(
        {"gru": [0.80, 0.81, 0.79], "lstm": [0.70, 0.71, 0.69], "rnn": [0.60, 0.61, 0.59]},
        {"gru": [10, 11, 12], "lstm": [95, 100, 105], "rnn": [30, 31, 32]},
    )
    verdicts = {claim.claim.split(" (")[0]: claim.verdict for claim in claims.judge(reversed_)}
    assert verdicts["the gru remembers 50-100 steps"] == "refuted"
    assert verdicts["the lstm remembers 50-100 steps"] == "undecided"  # 95 to 105
    assert verdicts["the rnn remembers fewer than 10 steps"] == "refuted"
    assert verdicts["the LSTM wins late in a series"] == "reproduced"
    assert verdicts["the GRU wins on small data"] == "refuted"
    assert verdicts["gates win over a plain RNN late in a series"] == "refuted"


def test_only_models_that_differ_in_the_cell_alone_are_held_against_the_claims() -> None:
    wide = {"gru": NETWORKS["gru"], "lstm": NETWORKS["lstm"].model_copy(update={"hidden": 16})}
    assert claims.alike(wide) == {"gru": "gru"}
    assert claims.alike({"a": Network(layers=2), "b": Network(layers=2, cells=("lstm",))}) == {"gru": "a", "lstm": "b"}


def test_tables_have_a_column_a_model() -> None:
    reaches = {"gru": [60], "lstm": [200], "rnn": [5]}
    results = made_up({"gru": [0.7], "lstm": [0.8], "rnn": [0.9]}, reaches)
    found = dict(table.rows(results))
    assert found["parameters"] == ["750", "1,000", "250"]
    assert found["error"] == ["0.700", "0.800", "0.900"]
    assert found["error against gru"] == ["", "+14.3%", "+28.6%"]
    assert found["error, trained on 10% (100)"] == ["0.700", "0.800", "0.900"]
    assert found["gradient reaches back, readings"] == ["60", "200+", "5"]
    assert found["training, steps"] == ["5", "5", "5"]
    assert found["training step, ms"] == ["870.0", "1000.0", "300.0"]
    assert found["network's step of 1, us a reading"][2] == "3e+05"
    text = table.markdown(results, claims.judge(results)).splitlines()
    assert text[:2] == ["|  | gru | lstm | rnn |", "| --- | ---: | ---: | ---: |"]
    two = replace(results, models={name: results.models[name] for name in ("gru", "lstm")})
    assert table.markdown(two, []).splitlines()[1] == "| --- | ---: | ---: |"
    assert len(table.tables(results, [])) == 1


# All of it


def test_recipes_by_name_and_file(tmp_path: Path) -> None:
    file = tmp_path / "wide.toml"
    file.write_text("horizons = [3]\n[network]\nhidden = 9\n")
    found = compare.recipes(["gru", str(file)], {"horizons": [3], "plan.steps": 7})
    assert found["wide"].network.hidden == 9
    assert {one.plan.steps for one in found.values()} == {7}
    with pytest.raises(BundleError, match="same steps ahead"):
        compare.recipes(["gru", str(file)], {})
    with pytest.raises(BundleError, match="two models are called gru"):
        compare.recipes(["gru", "gru"], {})


def test_nothing_learns_from_what_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    history = waves(1000)
    seen: list[tuple[str, int, int | None, int]] = []

    def spy(recipe: Recipe, source: data.Source, held_back: data.Windows, *rest: Any, **named: Any) -> Fitted:
        windows = source.draw(50, 64, np.random.default_rng(0))
        latest = max(int(windows.timestamp.max()), int(held_back.timestamp.max()))
        seen.append((str(recipe.network.cells[0]), recipe.plan.seed, source.readings, latest))
        return fit(recipe, source, held_back, *rest, **named)

    monkeypatch.setattr(compare, "fit", spy)
    models = {"gru": SMALL, "rnn": SMALL.model_copy(update={"network": NETWORKS["rnn"]})}
    study = compare.Study(seeds=2, shares=(0.5, 1.0), rounds=2, batches=(1,))
    results = compare.compare(models, history, study)
    assert [each[:3] for each in seen] == [
        (cell, seed, readings) for seed in (0, 1) for readings in (680, 1360) for cell in ("gru", "rnn")
    ]
    assert all(latest < 800 * HOUR_MS for *_, latest in seen)
    assert results.tested == 400
    assert len(results.trials) == 8
    assert len(results.of("rnn")) == 2
    assert set(results.trials[0].by_position) == {10, 25, 50, 100}  # the test part has no more
    assert results.trials[0].steps == 2
    json.dumps(results.plain())


def test_errors_are_those_of_the_trained_model_on_the_test_part(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Fitted] = []

    def keep(*given: Any, **named: Any) -> Fitted:
        made.append(fit(*given, **named))
        return made[-1]

    monkeypatch.setattr(compare, "fit", keep)
    history = waves(1000)
    results = compare.compare({"gru": SMALL}, history, compare.Study(1, (1.0,), 1, (1,)))
    _, test = history.split(SMALL.data.held_back)
    long = SMALL.model_copy(update={"data": SMALL.data.model_copy(update={"length": 1254})})
    prepared = prepare(data.held_back(test, long, 256), made[0].description)
    assert results.trials[0].error == evaluate(made[0].forecaster, prepared).error


def test_the_command_prints_one_object(tmp_path: Path) -> None:
    file, recipe = tmp_path / "waves.csv", tmp_path / "tiny.toml"
    one = waves(700, 1).series[0]
    lines = [f"{at},{value}" for at, value in zip(one.timestamp, one.value, strict=True)]
    file.write_text("\n".join(["t,v", *lines]))
    recipe.write_text('[network]\ncells = ["rnn"]\nhidden = 4\n')
    changes = ["data.length=32", "data.batch=2", "plan.chunk=16", "plan.warm_up=1", "horizons=[3]"]
    arguments = ["compare", str(file), "--time", "t", "--value", "v", "--model", str(recipe), "--model", "rnn"]
    arguments += [
        "--steps",
        "1",
        "--seeds",
        "1",
        "--quick",
        "--rounds",
        "2",
        "--json",
        "--out",
        str(tmp_path / "all.json"),
    ]
    arguments += [part for change in changes for part in ("--set", change)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert list(result["models"]) == ["tiny", "rnn"]
    assert result["models"]["tiny"]["size"]["state"] == 16
    assert len(result["trials"]) == 2
    assert json.loads((tmp_path / "all.json").read_text()) == result
    wrong = CliRunner().invoke(app, ["compare", "--model", "gru"])
    assert "history" in str(wrong.exception)
