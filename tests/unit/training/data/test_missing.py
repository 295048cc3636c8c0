from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream_gru.columns import Level, Readings
from stream_gru.detection import detector
from stream_gru.engine.engine import Engine
from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle
from stream_gru.models.context import Context
from stream_gru.models.network import Network
from stream_gru.models.scaling import Scaling
from stream_gru.training.data.missing import SERVED, How, fill, forward, interpolate
from stream_gru.training.data.series import Series

NAN = np.nan
HOUR = 3_600_000


def gappy() -> Series:
    """Nothing before the first value, nothing after the last one, and a gap with uneven times."""
    value = np.array([NAN, 10.0, 11.0, NAN, NAN, 17.0, 18.0, NAN])
    timestamp = np.array([0, 1, 2, 3, 6, 8, 9, 10]) * HOUR
    return Series(timestamp, value, 1, np.arange(8.0)[:, None], "a")


@pytest.mark.parametrize(
    ("how", "value", "rows"),
    [
        ("mask", [10, 11, 17, 18], [1, 2, 5, 6]),
        ("forward", [10, 11, 11, 11, 17, 18], [1, 2, 3, 4, 5, 6]),
        ("interpolate", [10, 11, 12, 15, 17, 18], [1, 2, 3, 4, 5, 6]),
    ],
)
def test_what_takes_the_place_of_a_missing_value(how: How, value: list[float], rows: list[int]) -> None:
    (filled,) = fill([gappy()], how)
    np.testing.assert_allclose(filled.value, value)
    np.testing.assert_array_equal(filled.timestamp, gappy().timestamp[rows])
    np.testing.assert_array_equal(filled.covariates[:, 0], rows)
    np.testing.assert_array_equal(filled.known, np.isfinite(gappy().value[rows]))
    assert filled.feature == 1


def test_a_series_without_a_value_is_left_out() -> None:
    nothing = Series(np.arange(5), np.full(5, NAN))
    assert [len(one) for one in fill([nothing, gappy()], "mask")] == [4]


def test_forward_leaves_what_has_nothing_before_it() -> None:
    np.testing.assert_array_equal(forward(np.array([[NAN, 1, NAN], [2, NAN, NAN]])), [[NAN, 1, 1], [2, 2, 2]])


def test_a_line_goes_by_time_not_by_place() -> None:
    np.testing.assert_allclose(interpolate(np.array([0, 1, 10]), np.array([0, NAN, 10.0])), [0, 1, 10])


def test_every_gap_is_served_by_what_needs_no_future() -> None:
    assert SERVED == {"mask": "mask", "forward": "forward", "interpolate": "forecast", "forecast": "forecast"}


def waves(name: str, phase: float) -> Series:
    value = 5 + np.sin(np.arange(300) / 6 + phase)
    value[np.random.default_rng(int(phase * 10)).random(300) < 0.2] = NAN
    return Series(np.arange(300) * HOUR, value, 0, name=name)


@pytest.mark.slow
def test_a_forecast_fills_as_the_engine_does_when_it_goes_on_with_its_own() -> None:
    series = [waves("a", 0.0), waves("b", 1.0)]
    filled = fill(series, "forecast")
    start = bundle.load()
    for one, whole in zip(series, filled, strict=True):
        kept = one.part(*np.flatnonzero(np.isfinite(one.value))[[0, -1]] + [0, 1])
        missing = np.isnan(kept.value)
        np.testing.assert_array_equal(whole.known, ~missing)
        np.testing.assert_array_equal(whole.value[~missing], kept.value[~missing])
        truth = 5 + np.sin(kept.timestamp / HOUR / 6 + (0.0 if one.name == "a" else 1.0))
        error = np.abs(whole.value - truth)[missing & (np.arange(len(truth)) > 60)].mean()
        repeated = np.abs(forward(kept.value) - truth)[missing & (np.arange(len(truth)) > 60)].mean()
        assert error < 0.5 * repeated
    assert start.description.missing == "mask"  # the model itself is as it was


@pytest.mark.slow
def test_a_bundle_of_several_scales_and_covariates_fills_its_own_feature(tmp_path: Path) -> None:
    description = bundle.Description(
        name="two",
        network=Network(hidden=4),
        horizons=(2,),
        context=Context(covariates=("load",), loc=(0.0,), scale=(1.0,)),
        scaling=Scaling(kind="standard", loc=(5.0, 500.0), scale=(1.0, 50.0)),
        missing="forecast",
    )
    bundle.save(tmp_path, description, bundle.build(description))
    one = waves("a", 0.0)
    one = Series(one.timestamp, 100 * one.value, 1, np.ones((300, 1)), "a")
    (filled,) = fill([one], "forecast", tmp_path)
    engine = Engine(tmp_path, features=2, capacity=1, device="cpu")
    table = engine.score(["a"] * 300, one.timestamp, np.c_[np.full(300, NAN), one.value], one.covariates)
    yhat = np.array([NAN if row["value_2"] is None else row["value_2"] for row in table["yhat"].to_list()])
    rows = slice(*np.flatnonzero(np.isfinite(one.value))[[0, -1]] + [0, 1])
    np.testing.assert_allclose(filled.value, np.where(np.isnan(one.value), yhat, one.value)[rows], rtol=1e-6)


def served_as(folder: Path, how: str) -> Path:
    start = bundle.load()
    bundle.save(folder, start.description.model_copy(update={"missing": how}), start.forecaster)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", ["forward", "forecast"])
def test_any_batching_of_readings_with_gaps_gives_the_same(tmp_path: Path, how: str) -> None:
    rng, n = np.random.default_rng(0), 200
    names = [f"s{i % 3}" for i in range(n)]
    value = rng.normal(size=(n, 2)).cumsum(0)
    value[rng.random((n, 2)) < 0.3] = NAN
    made = []
    for size in (n, 37, 1):
        engine = Engine(served_as(tmp_path, how), features=2, capacity=3, device="cpu")
        parts = [slice(at, at + size) for at in range(0, n, size)]
        tables = [engine.score(names[part], HOUR * np.arange(n)[part], value[part]) for part in parts]
        made.append([list(row.values()) for table in tables for row in table["yhat"].to_list()])
    whole, *others = (np.array(rows, float) for rows in made)
    assert np.isfinite(whole[20:]).all()  # also of what was missing
    for other in others:
        np.testing.assert_allclose(other, whole, rtol=1e-6)


@pytest.mark.parametrize(("how", "moves"), [("mask", False), ("forward", True), ("forecast", True)])
def test_a_value_of_our_own_moves_the_series_on_and_is_no_evidence(tmp_path: Path, how: str, moves: bool) -> None:
    engine = Stepper(served_as(tmp_path, how), capacity=1, device="cpu")
    time = HOUR * np.arange(100)
    engine.arena.open(0)
    slots = np.repeat(engine.arena.admit(0, [b"a"]), 99)
    value = np.random.default_rng(0).normal(size=(99, 1))
    engine.step(Readings(slots, np.arange(99), time[:99], value))
    before = engine.arena.bodies.clone().view(-1)
    (level,) = engine.step(Readings(slots[:1], np.array([99]), time[99:], np.array([[NAN]]))).level
    after = engine.arena.bodies.view(-1)
    names = list(engine.layout.fields)
    first = names.index(next(iter(detector.FIELDS)))
    start = sum(engine.layout.fields[name] for name in names[:first])
    judging = slice(start, start + sum(detector.FIELDS.values()))
    assert level == Level.MISSING
    assert bool((after[judging] == before[judging]).all())
    assert bool((after[:start] == before[:start]).all()) != moves
