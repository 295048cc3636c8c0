from __future__ import annotations

import json
import math
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stream_gru.cli import app
from stream_gru.engine.engine import Engine
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import DataError, TrainingError
from stream_gru.models import bundle
from stream_gru.models.forecaster import Forecaster
from stream_gru.models.scaling import Scaling
from stream_gru.training import data, objective, recipe, rolling, validate
from stream_gru.training.data.series import Series, SeriesCollection
from stream_gru.training.fit import Fitted
from stream_gru.training.prepare import prepare
from stream_gru.training.rolling import Origins, Track
from stream_gru.training.validate import JudgedPart, Score
from tests.support.command_line import stream_gru

SMALL = {
    "network.hidden": 4,
    "horizons": [2, 4],
    "data.length": 32,
    "data.batch": 4,
    "plan.steps": 4,
    "plan.check_every": 2,
    "plan.warm_up": 1,
}


def series(n: int, seed: int = 0, begin: int = 0, name: str = "s", feature: int = 0) -> Series:
    rng = np.random.default_rng(seed)
    value = 10 + np.sin(np.arange(n) / 4) + rng.normal(0, 0.2, n)
    return Series((begin + np.arange(n)) * 60_000, value, feature, rng.normal(5, 2, (n, 1)), name)


def tiny(folder: Path, **changes: object) -> bundle.Bundle:
    torch.manual_seed(1)
    whole = recipe.load(None, {**SMALL, **changes})
    description = bundle.Description(name="tiny", network=whole.network, horizons=whole.horizons, context=whole.context)
    return bundle.save(folder, description, bundle.build(description))


def test_folds_are_in_order_of_time_for_each_series() -> None:
    history = SeriesCollection([series(1003, 0, name="long"), series(640, 1, begin=77, name="short")], ("c",))
    pairs = list(validate.folds(history, 4, gap=7))
    assert len(pairs) == 4
    for past, after in pairs:
        assert past.covariates == after.covariates == ("c",)
        for whole, before, later in zip(history.series, past.series, after.series, strict=True):
            assert len(later) == len(whole) // 5
            assert before.name == later.name == whole.name
            assert before.timestamp[0] == whole.timestamp[0]
            assert later.timestamp[0] - before.timestamp[-1] == (7 + 1) * 60_000
            for part in (before, later):
                at = np.searchsorted(whole.timestamp, part.timestamp)
                np.testing.assert_array_equal(whole.value[at], part.value)
                np.testing.assert_array_equal(whole.covariates[at], part.covariates)
    for (_, earlier), (_, follows) in pairwise(pairs):  # what comes after is cut without overlap or hole
        for a, b in zip(earlier.series, follows.series, strict=True):
            assert b.timestamp[0] - a.timestamp[-1] == 60_000
    assert [one.timestamp[-1] for one in pairs[-1][1].series] == [one.timestamp[-1] for one in history.series]
    recent = list(validate.folds(history, 4, max_train_size=150))
    assert {len(one) for past, _ in recent for one in past.series} <= {128, 150}


def test_a_series_that_is_too_short_takes_no_part_in_a_fold() -> None:
    history = SeriesCollection([series(1000), series(3, 1, name="stub")])
    assert all(len(past.series) == len(after.series) == 1 for past, after in validate.folds(history, 4))
    with pytest.raises(DataError, match=r"fold 1 of 9: no series has 100 readings.*the longest has 900"):
        list(validate.folds(SeriesCollection([series(900)]), 9))
    with pytest.raises(DataError, match="fewer folds or a smaller gap"):
        list(validate.folds(SeriesCollection([series(900)]), 3, gap=800))


def test_the_future_changes_nothing_in_the_model_of_a_fold() -> None:
    changes = {**SMALL, "data.scaling": "standard", "context.covariates": ["c"]}
    whole = recipe.load(None, changes)
    history = SeriesCollection([series(900)], ("c",))

    def models(altered_from: int) -> list[Fitted]:
        one = series(900)
        one.value[altered_from:] = one.value[altered_from:] * 50 + 1000
        one.covariates[altered_from:] += 1e6
        pairs = validate.folds(SeriesCollection([one], ("c",)), 2)
        return [validate.learn(whole, past, "fold") for past, _ in pairs]

    first, second = (len(past) for past, _ in validate.folds(history, 2))
    same, other = models(first), models(second)
    for number, (a, b) in enumerate(zip(same, other, strict=True)):
        equal = [torch.equal(x, y) for x, y in zip(a.forecaster.parameters(), b.forecaster.parameters(), strict=True)]
        learned = a.description == b.description
        assert (all(equal), learned) == ((True, True) if number == 0 else (False, False))
    assert same[0].description.scaling.kind == "standard"


def test_each_fold_learns_from_the_past_and_is_judged_on_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recipe.load(None, SMALL)
    history = SeriesCollection([series(900), series(700, 1, name="t")])
    learned: list[int] = []
    learn = validate.learn

    def spy(base: recipe.Recipe, past: SeriesCollection, *others: object) -> Fitted:
        learned.append(max(int(one.timestamp[-1]) for one in past.series))
        return learn(base, past, *others)  # type: ignore[arg-type]  # passed on

    judged: list[tuple[int, int]] = []
    judge = validate.judge_windows

    def look(forecaster: Forecaster, description: bundle.Description, windows: data.Windows) -> Score:
        judged.append((int(windows.timestamp.min()), int(windows.timestamp.max())))
        return judge(forecaster, description, windows)

    monkeypatch.setattr(validate, "learn", spy)
    monkeypatch.setattr(validate, "judge_windows", look)
    told: list[int] = []
    pairs = list(validate.folds(history, 2, gap=3))
    blocks = list(validate.by_folds(whole, pairs, lambda number, _: told.append(number)))
    assert [block.trained for block in blocks] == [sum(map(len, past.series)) for past, _ in pairs] == [528, 1061]
    assert [block.judged for block in blocks] == [300 + 233] * 2
    assert [block.end for block in blocks] == [599 * 60_000, 899 * 60_000]
    assert told == [0] * 4 + [1] * 4
    for k, block in enumerate(blocks):  # the shorter series' future begins first
        assert block.begin <= judged[k][0] < judged[k][1] <= block.end
        assert learned[k] == pairs[k][0].series[0].timestamp[-1]
    spreads = validate.summary(blocks)
    assert list(spreads) == ["error", "mae", "coverage"]
    for step in range(3):
        errors = [block.score.error[step] for block in blocks]
        assert errors[0] != errors[1]
        assert spreads["error"].mean[step] == pytest.approx(sum(errors) / 2)
        assert spreads["error"].deviation is not None
        assert spreads["error"].deviation[step] == pytest.approx(abs(errors[0] - errors[1]) / math.sqrt(2))


def test_mean_and_deviation_of_blocks() -> None:
    rows = [[1.0, 5.0], [2.0, math.nan], [6.0, 7.0]]
    spread = validate.spread(rows)
    assert spread.mean == [3.0, 6.0]
    assert spread.deviation == pytest.approx([math.sqrt(7), math.sqrt(2)])
    assert validate.spread(rows[:1]).deviation is None


def test_windows_are_judged_as_a_fit_judges_them(tmp_path: Path) -> None:
    made = tiny(tmp_path)
    windows = data.Synthetic().draw(16, 40, np.random.default_rng(0))
    score = validate.judge_windows(made.forecaster, made.description, windows)
    prepared = prepare(windows, made.description)
    quality = objective.evaluate(made.forecaster, prepared)
    assert (score.steps, score.error, score.coverage) == ((1, 2, 4), quality.error, quality.coverage)
    with torch.no_grad():
        middle = objective.run(made.forecaster, prepared)[0].mean(0)[:, 0].numpy()  # (3, T, N)
    for k, ahead in enumerate(score.steps):
        value = windows.value.T
        misses = np.abs(value[2 + ahead :] - (value[2:-ahead] + middle[k, 2:-ahead]))
        assert score.mae[k] == pytest.approx(misses.mean(), rel=1e-4)


def hand_made(n: int, seed: int) -> Track:
    rng = np.random.default_rng(seed)
    value = rng.normal(0, 3, n).cumsum()
    middle = rng.normal(0, 3, (n, 2))
    width = rng.uniform(0, 6, (n, 2))
    return Track(np.arange(n) * 1000, value, np.stack([middle, middle - width, middle + width], 2))


def test_rolling_origins_equal_a_computation_by_hand() -> None:
    tracks, steps, every, period = [hand_made(60, 0), hand_made(41, 1)], (1, 7), 3, 4
    blocks = rolling.rolling(tracks, steps, Origins(every, 2, 0.5, period), trained=9)
    own_origins = [list(range(30, 59, every)), list(range(20, 40, every))]
    for number, block in enumerate(blocks):
        halves = [o[: (len(o) + 1) // 2] if number == 0 else o[(len(o) + 1) // 2 :] for o in own_origins]
        assert (block.trained, block.judged) == (9, sum(map(len, halves)))
        assert block.begin == min(half[0] for half in halves) * 1000
        assert block.end == max(half[-1] for half in halves) * 1000
        for s, ahead in enumerate(steps):
            ratios, seasonal, misses, inside = [], [], [], []
            for track, half in zip(tracks, halves, strict=True):
                a = b = c = 0.0
                for t in half:
                    if t + ahead >= len(track.value):
                        continue
                    truth = track.value[t + ahead]
                    middle, low, high = track.forecast[t, s]
                    ago = t + ahead - period
                    while ago > t:
                        ago -= period
                    a += abs(truth - middle)
                    b += abs(truth - track.value[t])
                    c += abs(truth - track.value[ago])
                    misses.append(abs(truth - middle))
                    inside.append(low <= truth <= high)
                if b:
                    ratios.append(a / b)
                    seasonal.append(c / b)
            assert block.score.error[s] == pytest.approx(statistics.geometric_mean(ratios))
            assert block.score.mae[s] == pytest.approx(statistics.fmean(misses))
            assert block.score.coverage[s] == pytest.approx(statistics.fmean(inside))
            assert block.score.seasonal is not None
            assert block.score.seasonal[s] == pytest.approx(statistics.geometric_mean(seasonal))
    assert rolling.rolling(tracks, steps, Origins())[0].score.seasonal is None


def test_a_forecast_of_the_last_value_has_the_error_one_and_missing_targets_do_not_count() -> None:
    value = np.array([1.0, 4, 2, np.nan, 8, 5, 9, np.nan, 7, 3])
    forecast = np.repeat(np.array([1.0, 4, 2, 2, 8, 5, 9, 9, 7, 3])[:, None, None], 3, 2)
    score = rolling.judge([Track(np.arange(10), value, forecast)], [np.arange(10)], (1,))
    assert score.error == [1.0]
    assert score.mae == [pytest.approx((3 + 2 + 6 + 3 + 4 + 2 + 4) / 7)]
    forecast[0] = np.nan  # no forecast yet
    again = rolling.judge([Track(np.arange(10), value, forecast)], [np.arange(10)], (1,))
    assert again.mae == [pytest.approx((2 + 6 + 3 + 4 + 2 + 4) / 6)]


def test_fewer_origins_than_blocks_is_an_error() -> None:
    with pytest.raises(DataError, match="there are 3 origins for 5 blocks"):
        rolling.rolling([hand_made(60, 0)], (1, 7), Origins(10, 5, 0.5))


@pytest.mark.parametrize("missing", ["mask", "forward", "forecast"])
def test_tracks_are_what_the_engine_says_reading_by_reading(tmp_path: Path, missing: str) -> None:
    made = tiny(tmp_path)
    description = made.description.model_copy(update={"missing": missing})
    bundle.save(tmp_path, description, made.forecaster)
    ones = [series(50, 0, name="a"), series(37, 1, name="a")]
    history = SeriesCollection([Series(one.timestamp, one.value, name=one.name) for one in ones])
    history.series[0].value[[10, 11, 30]] = np.nan
    engine = Stepper(tmp_path, capacity=2, device="cpu")
    tracks = rolling.tracks(engine, history)
    assert [len(track.value) for track in tracks] == [47 if missing == "mask" else 50, 37]
    for one, track in zip(history.series, tracks, strict=True):
        alone = Engine(tmp_path, capacity=1, device="cpu")
        table = alone.score(["x"] * len(one), one.timestamp, one.value)
        rows = np.flatnonzero(np.isfinite(one.value)) if missing == "mask" else np.arange(len(one))
        np.testing.assert_array_equal(track.value, one.value[rows])
        for k, ahead in enumerate((1, 2, 4)):
            steps = [steps[k] for steps in table["forecast"].to_list()]
            assert {step["step"] for step in steps} == {ahead}
            for i, name in enumerate(("yhat", "yhat_lower", "yhat_upper")):
                said = np.array([step[name] for step in steps], float)[rows]
                np.testing.assert_allclose(track.forecast[:, k, i], said, rtol=1e-6)
        np.testing.assert_allclose(track.forecast[:-1, 0, 0], table["yhat"].to_numpy()[rows][1:], rtol=1e-6)


def test_each_feature_has_its_own_scale(tmp_path: Path) -> None:
    made = tiny(tmp_path)
    scaling = Scaling(kind="standard", loc=(10.0, 500.0), scale=(1.0, 40.0))
    bundle.save(tmp_path, made.description.model_copy(update={"scaling": scaling}), made.forecaster)
    one, other = series(60), series(60, 1)
    value = np.stack([one.value, 50 * other.value], 1)
    history = SeriesCollection([Series(one.timestamp, column, feature) for feature, column in enumerate(value.T)])
    features = {"features": 2, "capacity": 2, "device": "cpu"}
    tracks = rolling.tracks(Stepper(tmp_path, **features), history)  # type: ignore[arg-type]  # three of its options
    together = Engine(tmp_path, **features).score(["x"] * 60, one.timestamp, value)  # type: ignore[arg-type]  # as above
    for name, track in zip(("value_1", "value_2"), tracks, strict=True):
        said = together["yhat"].struct.field(name).to_numpy()
        np.testing.assert_allclose(track.forecast[:-1, 0, 0], said[1:], rtol=1e-6)


def test_no_forecast_knows_what_comes_after_its_origin(tmp_path: Path) -> None:
    tiny(tmp_path)
    one, other = series(80), series(80)
    other.value[50:] += 99
    plain = [SeriesCollection([Series(each.timestamp, each.value)]) for each in (one, other)]
    first, second = (rolling.tracks(Stepper(tmp_path, capacity=1, device="cpu"), each)[0] for each in plain)
    np.testing.assert_array_equal(first.forecast[:50], second.forecast[:50])
    assert (first.forecast[50:, :, 0] != second.forecast[50:, :, 0]).all()


@pytest.mark.slow
def test_a_recipe_is_fitted_once_on_what_lies_before_the_first_origin(tmp_path: Path) -> None:
    history = SeriesCollection(
        [Series(one.timestamp, one.value, f, name="m") for f, one in enumerate([series(600)] * 2)]
    )
    whole = recipe.load(None, {**SMALL, "data.scaling": "standard"})  # a scale for each of the two features
    told: list[str] = []
    blocks = rolling.by_origins(history, whole, Origins(5, 3, 0.75), lambda what, _: told.append(what), device="cpu")
    assert [block.trained for block in blocks] == [900] * 3
    assert blocks[0].begin == 450 * 60_000
    assert set(told) == {"fit", "forecasts"}
    assert all(0 < error < 10 for block in blocks for error in block.score.error)
    tiny(tmp_path)
    served = rolling.by_origins(history, tmp_path, Origins(), device="cpu")
    assert [block.trained for block in served] == [None] * 5
    assert served[0].begin == 60_000
    shipped = rolling.by_origins(history, Path("light"), Origins(), device="cpu")
    assert shipped[-1].score.error[0] < served[-1].score.error[0]  # it was trained


def test_the_covariates_must_be_those_of_the_bundle(tmp_path: Path) -> None:
    tiny(tmp_path, **{"context.covariates": ["c", "d"]})
    with pytest.raises(DataError, match="wants the covariates c, d; the history has c"):
        rolling.by_origins(SeriesCollection([series(200)], ("c",)), tmp_path, Origins())
    tiny(tmp_path, **{"context.covariates": ["c"]})
    assert len(rolling.by_origins(SeriesCollection([series(200)], ("c",)), tmp_path, Origins(blocks=2))) == 2


def write(folder: Path, n: int = 500) -> list[str]:
    one = series(n)
    rows = (f"{1_700_000_000 + 60 * i},{v:.4f},{2 * v:.4f}" for i, v in enumerate(one.value))
    (folder / "h.csv").write_text("\n".join(["t,x,y", *rows]))
    return ["validate", str(folder / "h.csv"), "--time", "t", "--value", "x"]


def run(*arguments: str) -> str:
    return stream_gru(*arguments).stdout


@pytest.mark.slow
def test_the_command_prints_folds_and_origins(tmp_path: Path) -> None:
    base = write(tmp_path)
    small = [part for name, value in SMALL.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    found = json.loads(run(*base, *small, "--folds", "2", "--json"))
    assert found["kind"] == "folds"
    assert [block["judged"] for block in found["blocks"]] == [166, 166]
    errors = [block["score"]["error"][0] for block in found["blocks"]]
    assert found["error"]["mean"][0] == pytest.approx(statistics.fmean(errors))
    assert found["error"]["deviation"][0] == pytest.approx(statistics.stdev(errors))
    text = run(*base, *small, "--folds", "2", "--steps", "2", "--gap", "1")
    assert text.count("±") == 9
    assert "2023-11-" in text
    tiny(tmp_path / "b")
    served = ["--rolling", "--bundle", str(tmp_path / "b"), "--period", "25", "--every", "2", "--folds", "1"]
    rolled = json.loads(run(*base, *served, "--json"))
    assert rolled["kind"] == "rolling"
    assert rolled["blocks"][0]["judged"] == (499 - 25 + 1) // 2
    assert rolled["seasonal"]["deviation"] is None
    assert "seasonal" in run(*base, *served)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", "1"], "at least 2"),
        (["--period", "4"], "goes with --rolling"),
        (["--rolling", "--gap", "4"], "is about folds"),
        (["--rolling", "--shipped", "--steps", "4"], "is about a fit"),
        (["--rolling", "--shipped", "--bundle", "x"], "exclude each other"),
    ],
)
def test_options_that_say_nothing_together_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, [*write(tmp_path), *options])
    assert result.exit_code == 2
    assert message in result.output


def test_history_and_the_extra_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="needs history"):
        run("validate")
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(TrainingError, match=r"pip install 'stream-gru\[training\]'"):
        run(*write(tmp_path))


def test_what_is_not_finite_is_null_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = JudgedPart(1, 2, 3, 4, Score((1,), [math.nan], [1.0], [0.5]))
    monkeypatch.setattr(validate, "by_folds", lambda *_: iter([block, block]))
    found = json.loads(run(*write(tmp_path), "--folds", "2", "--json"))
    assert found["error"] == {"mean": [None], "deviation": [None]}
