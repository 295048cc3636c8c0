"""What results say of the claims, and the tables of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_gru.models.network import Network
from stream_gru.training.comparison import claims, cost, skill, table
from stream_gru.training.comparison.results import ComparedModel, Results, Trial
from tests.support.comparing import NETWORKS


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
        cell: ComparedModel(
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
