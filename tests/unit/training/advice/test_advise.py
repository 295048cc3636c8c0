from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stream_gru.cli import app
from stream_gru.columns import Floats
from stream_gru.errors import DataError
from stream_gru.models import bundle
from stream_gru.training import data
from stream_gru.training.advice import advise, seasons, trial
from stream_gru.training.advice.traits import Traits, beat, grid, measure, noise, runs, told, wander
from stream_gru.training.fit import fit
from stream_gru.training.recipe import load
from tests.support.command_line import stream_gru

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


def history(*values: Floats, step_ms: int = HOUR_MS, features: tuple[int, ...] = ()) -> data.SeriesCollection:
    return data.SeriesCollection(
        [
            data.Series(np.arange(len(value)) * step_ms, value, features[i] if features else 0)
            for i, value in enumerate(values)
        ]
    )


def dice(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def wave(period: float, n: int, seed: int = 0, noisy: float = 0.3) -> Floats:
    value: Floats = np.sin(2 * np.pi * np.arange(n) / period) + noisy * dice(seed).normal(size=n)
    return value


# What is measured


@pytest.mark.parametrize(("period", "noisy"), [(24, 0.0), (24, 1.0), (37, 0.5), (150, 0.5), (7, 0.2)])
def test_a_period_is_found_under_noise(period: int, noisy: float) -> None:
    found, share, longer, _ = seasons.periods(wave(period, 2000, 1, noisy), MINUTE_MS)
    assert found == period
    assert longer is None
    assert share == pytest.approx(0.5 / (0.5 + noisy**2), abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_a_period_is_found_on_a_wandering_level_but_not_in_one(seed: int) -> None:
    walk = dice(seed).normal(size=3000).cumsum()
    assert seasons.periods(walk, MINUTE_MS)[0] is None
    assert seasons.periods(0.2 * walk + 2 * wave(37, 3000, seed, 0.0), MINUTE_MS)[0] == 37
    assert seasons.periods(dice(seed).normal(size=3000), MINUTE_MS)[0] is None


def test_a_day_comes_before_its_week() -> None:
    hours = np.arange(24 * 7 * 8)
    weekend = hours // 24 % 7 >= 5
    value = np.where(weekend, 0.4, 1) * (1 + np.sin(2 * np.pi * hours / 24)) + 0.1 * dice(0).normal(size=len(hours))
    period, _, longer, share = seasons.periods(value, HOUR_MS)
    assert (period, longer) == (24, 168)
    assert share > 0.5


def test_a_period_is_found_around_what_is_missing() -> None:
    value = wave(24, 2000, 0, 0.2)
    value[dice(1).random(2000) < 0.3] = np.nan
    value[300:400] = np.nan
    assert seasons.periods(value, MINUTE_MS)[0] == 24


def test_too_few_cycles_are_no_period() -> None:
    assert seasons.periods(wave(24, 60, 0, 0.0), MINUTE_MS)[0] is None
    assert seasons.periods(np.ones(50), MINUTE_MS) == (None, 0.0, None, 0.0)
    assert seasons.periods(np.full(50, np.nan), MINUTE_MS)[0] is None


def test_other_cycles_foretell_nothing_of_noise() -> None:
    assert seasons.explained(dice(0).normal(size=3000), 24) < 0.02
    assert seasons.explained(wave(24, 3000, 0, 0.0), 24) == pytest.approx(1)


def test_a_beat_with_gaps_is_regular_and_a_random_one_is_not() -> None:
    time = np.delete(np.arange(100) * 1000, [10, 11, 50])
    assert beat(time) == (1000, 0)
    values = grid(time, np.ones(97), 1000)
    assert len(values) == 100
    assert runs(np.isnan(values)).tolist() == [2, 1]
    _, irregular = beat(np.cumsum(dice(0).exponential(1000, 500)).astype(int) + np.arange(500))
    assert irregular > 0.5
    burst = np.array([0, 1000, 2000, 10_000_000])
    assert len(grid(burst, np.ones(4), 1000)) == 4  # not 10,000 of which 4 are known


def test_noise_is_what_neighbours_do_not_tell() -> None:
    assert noise(dice(0).normal(size=5000)) == pytest.approx(1, abs=0.05)
    assert noise(wave(200, 5000, 0, 0.0)) < 0.01
    assert noise(wave(200, 5000, 0, 0.5)) == pytest.approx(0.25 / 0.75, abs=0.05)
    assert noise(np.ones(10)) == 0


def test_a_level_that_moves_wanders_and_a_season_does_not() -> None:
    steady = wave(24, 2400, 0, 0.1)
    assert wander(steady, 24) < 0.1
    assert wander(steady + 5 * (np.arange(2400) > 1200), 24) > 2


def test_spreads_and_levels_are_compared_within_a_feature() -> None:
    small, large = dice(0).normal(size=500), 100 * dice(1).normal(size=500)
    apart = measure(history(small, large))
    assert 50 < apart.sizes < 200
    assert measure(history(small, large, features=(0, 1))).sizes == 1
    assert measure(history(small, small + 10)).offsets == pytest.approx(10, rel=0.1)


def test_a_history_is_measured_series_by_series() -> None:
    values = [wave(24, 1000, seed) for seed in range(3)] + [dice(9).normal(size=400)]
    values[0][100:103] = np.nan
    traits = measure(history(*values))
    assert (traits.series, traits.readings, traits.typical, traits.longest) == (4, 3397, 998, 1000)
    assert traits.period == 24
    assert traits.gap == 3
    assert traits.missing == pytest.approx(0.003 / 4)
    assert traits.step_ms == HOUR_MS
    assert measure(history(values[0], values[3], values[3])).period is None  # most have none
    assert dict(told(traits))["period"].startswith("24 readings")


# What is advised


def traits(**changes: Any) -> Traits:
    """Ordinary ones."""
    plain = Traits(
        series=10,
        readings=10_000,
        typical=1000,
        longest=1000,
        step_ms=MINUTE_MS,
        irregular=0.0,
        missing=0.0,
        gap=0,
        period=None,
        repeats=0.0,
        longer=None,
        repeats_longer=0.0,
        noise=0.1,
        wander=0.8,
        unchanged=0.0,
        spikes=0.0,
        sizes=5.0,
        offsets=3.0,
    )
    return replace(plain, **changes)


LONG = {"readings": 500_000, "typical": 50_000, "longest": 50_000}


def because(advice: advise.Advice, about: str) -> str:
    return next(reason.because for reason in advice.reasons if reason.about == about)


def test_little_data_takes_the_packaged_model() -> None:
    advice = advise.advise(traits(series=2, readings=900, typical=450, longest=450))
    assert advice.start == "packaged"
    assert "900 readings in 2 series" in because(advice, "start")


def test_some_data_fine_tunes_the_packaged_model_as_it_is() -> None:
    advice = advise.advise(traits(period=10_080, repeats=0.5, readings=40_000, typical=40_000))
    package = bundle.load().description
    assert advice.start == "fine-tune"
    own = advice.recipe
    assert (own.features, own.network, own.horizons) == (package.features, package.network, package.horizons)
    assert advice.recipe.context.size == 0
    assert advice.recipe.plan.learning_rate < 1e-3
    assert "weekdays" in because(advice, "start")


def test_much_data_without_a_need_for_another_network_is_fine_tuned() -> None:
    assert advise.advise(traits(**LONG)).start == "fine-tune"


def test_a_week_asks_for_weekdays() -> None:
    advice = advise.advise(traits(period=1440, repeats=0.5, longer=10_080, repeats_longer=0.42, **LONG))
    assert advice.start == "scratch"
    assert advice.recipe.context.weekday
    assert "42%" in because(advice, "weekdays")
    assert advice.recipe.plan.learning_rate == 3e-3
    assert not advise.advise(
        traits(period=1440, repeats=0.5, longer=9000, repeats_longer=0.42, **LONG)
    ).recipe.context.size


def test_a_day_needs_no_memory_since_the_clock_tells_it() -> None:
    advice = advise.advise(traits(period=24, step_ms=HOUR_MS, repeats=0.8, **LONG))
    assert advice.recipe.network == bundle.load().description.network
    assert "hour of the day" in because(advice, "period")


def test_another_period_asks_for_a_memory_of_its_length() -> None:
    short = advise.advise(traits(period=20, repeats=0.6, **LONG))
    assert short.recipe.network.attention == 40
    assert short.recipe.horizons == (12, 20)
    assert "20 readings" in because(short, "attention")
    assert "bytes" in because(short, "attention")
    long = advise.advise(traits(period=200, repeats=0.6, **LONG))
    assert long.recipe.network.scales == 3
    assert long.variant == "multi-scale"
    assert long.recipe.data.length >= 800
    assert advise.advise(traits(period=200, repeats=0.15, **LONG)).start == "fine-tune"  # too weak for it


def test_equal_sensors_take_one_scale_and_others_their_own() -> None:
    equal = {"sizes": 1.2, "offsets": 0.1, "wander": 0.2}
    assert advise.advise(traits(**equal, **LONG)).recipe.data.scaling == "standard"
    assert advise.advise(traits(**equal, spikes=0.05, **LONG)).recipe.data.scaling == "robust"
    for other in ({"sizes": 4.0}, {"offsets": 2.0}, {"wander": 2.0}, {"series": 1}):
        assert advise.advise(traits(**{**LONG, **equal, **other})).recipe.data.scaling == "online"


@pytest.mark.parametrize(
    ("changes", "policy", "number"),
    [
        ({}, "mask", "none"),
        ({"missing": 0.05, "gap": 1}, "forecast", "5.0%"),
        ({"missing": 0.05, "gap": 40}, "mask", "40 in a row"),
        ({"missing": 0.05, "gap": 1, "unchanged": 0.8}, "forward", "80%"),
        ({"missing": 0.05, "gap": 1, "irregular": 0.6}, "mask", "60%"),
        ({"missing": 0.05, "gap": 1, "noise": 0.9}, "mask", "5.0%"),
    ],
)
def test_missing_values_by_how_they_are_missing(changes: dict[str, Any], policy: str, number: str) -> None:
    advice = advise.advise(traits(**changes))
    assert advice.recipe.data.missing == policy
    assert number in because(advice, "missing values")


def test_a_window_holds_periods_but_no_more_than_there_is() -> None:
    def length(**changes: Any) -> int:
        return advise.advise(traits(**changes)).recipe.data.length

    assert length(**LONG) == 512
    assert length(period=300, repeats=0.4, **LONG) == 2048
    assert length(period=9000, repeats=0.4, **LONG) == 4096
    assert length(period=300, repeats=0.4) < 1000
    assert length(readings=1000, typical=20) == 16


def test_the_recipe_goes_through_its_file_with_its_reasons(tmp_path: Path) -> None:
    for made in (traits(), traits(period=20, repeats=0.6, **LONG), traits(missing=0.05, gap=1, readings=100)):
        advice = advise.advise(made)
        file = tmp_path / "recipe.toml"
        file.write_text(advise.as_toml(advice))
        assert load(file) == advice.recipe
        assert file.read_text().count("\n# ") == len(advice.reasons) - 1
    assert {reason.sure for reason in advice.reasons} <= {"sure", "fair", "guess"}


# What becomes of it


def outcome(name: str, *errors: list[float]) -> trial.TrialOutcome:
    by_window = np.array(errors)
    return trial.TrialOutcome(name, (1, 12)[: len(errors)], by_window.mean(1).tolist(), by_window)


def test_the_better_one_is_told_with_its_doubt() -> None:
    second = dice(0).uniform(0.5, 1, 40)
    gain, doubt = trial.better(outcome("a", list(0.9 * second)), outcome("b", list(second), [9.0] * 40))
    assert gain == pytest.approx(0.1)
    assert doubt == pytest.approx(0, abs=1e-6)
    gain, doubt = trial.better(outcome("a", list(dice(1).uniform(0.5, 1, 40))), outcome("b", list(second)))
    assert abs(gain) < doubt
    assert trial.better(outcome("a", [0.5, 0.5]), outcome("b", [0.9, 0.9]))[1] == np.inf


@pytest.mark.parametrize(
    ("factor", "start", "said"),
    [(0.8, "fine-tune", "Confirmed"), (1.2, "packaged", "Overturned"), (1.0, "fine-tune", "Undecided")],
)
def test_a_back_test_overrules_the_advice(
    monkeypatch: pytest.MonkeyPatch, factor: float, start: str, said: str
) -> None:
    tried: list[trial.Candidate] = []

    def made_up(candidates: list[trial.Candidate], *_: Any) -> list[trial.TrialOutcome]:
        tried.extend(candidates)
        second = dice(0).uniform(0.5, 1, 40)
        return [outcome("first", list(factor * second)), outcome("second", list(second))]

    monkeypatch.setattr(trial, "try_out", made_up)
    verdict = trial.verify(advise.advise(traits()), history(np.arange(9.0)), traits(), 3.0)
    assert verdict.advice.start == start
    assert verdict.said.startswith(said)
    assert verdict.advice.reasons[0].about == "start"
    fitted, packaged = tried
    assert fitted.recipe is not None
    assert (fitted.recipe.plan.minutes, fitted.recipe.plan.steps) == (3.0, None)
    assert packaged.recipe is None


def test_a_candidate_is_judged_where_no_fit_has_been(monkeypatch: pytest.MonkeyPatch) -> None:
    latest: list[int] = []

    def spy(recipe: Any, source: Any, held_back: Any, *rest: Any, **named: Any) -> Any:
        windows = source.draw(30, 64, dice(0))
        latest.append(max(int(windows.timestamp.max()), int(held_back.timestamp.max())))
        return fit(recipe, source, held_back, *rest, **named)

    monkeypatch.setattr("stream_gru.training.advice.trial.fit", spy)
    recipe = load(None, {"network.hidden": 4, "data.length": 64, "data.batch": 4, "plan.steps": 2, "plan.chunk": 32})
    value = wave(24, 4000)
    value[3800:] += 0.1
    candidates = [trial.Candidate("own", recipe, None), trial.Candidate("package", None, bundle.load())]
    own, package = trial.try_out(candidates, history(value, wave(24, 4000, 2)), 0.5)
    assert max(latest) < 2000 * HOUR_MS
    assert own.by_window.shape == package.by_window.shape == (3, 8)  # 2 series of 2000 readings in windows of 512
    assert package.error[0] < 1
    assert own.steps == package.steps == (1, 12, 36)


def test_nothing_that_moves_is_nothing_to_try_on() -> None:
    value = np.concatenate([wave(24, 300), np.ones(300)])
    with pytest.raises(DataError, match="nothing moves"):
        trial.try_out([trial.Candidate("package", None, bundle.load())], history(value), 0.5)


def test_the_command_writes_a_recipe_and_says_what_to_do(tmp_path: Path) -> None:
    file, out = tmp_path / "waves.csv", tmp_path / "recipe.toml"
    file.write_text("\n".join(["t,v", *(f"{i * HOUR_MS},{v}" for i, v in enumerate(wave(24, 3000)))]))
    arguments = ["advise", str(file), "--time", "t", "--value", "v", "--out", str(out)]
    done = stream_gru(*arguments)
    assert "fine-tune" in done.stdout
    assert f"--recipe {out} --out" in done.stdout
    shown = json.loads(stream_gru(*arguments, "--json").stdout)
    assert shown["traits"]["period"] == 24
    assert load(out).model_dump(mode="json") == shown["recipe"]
    assert shown["tried"] is None
    assert isinstance(CliRunner().invoke(app, ["advise"]).exception, DataError)
