from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import stream_gru
from stream_gru import DataError, Engine, OutputError
from stream_gru.models import bundle
from tests.support.waves import MINUTE, START, wave


def test_score_takes_columns_and_gives_the_output_record() -> None:
    engine = Engine(features=["a", "b"], capacity=10, device="cpu")
    times = np.datetime64("2026-01-01", "s") + np.arange(6) // 2 * np.timedelta64(60, "s")
    values = [[1, 2], [3, None], [1.5, 2.5], [3, 4], [None, None], [3, 4.5]]
    table = engine.score(["x", "y"] * 3, times, values)
    assert table.columns == [
        *("series", "timestamp", "y", "yhat", "yhat_lower", "yhat_upper", "anomaly_score", "anomaly_grade"),
        *("is_anomaly", "alert", "alert_score", "level", "forecast", "model", "id", "yhat_spread"),
        "imputed",
        *("relevant_attribution", "expected_values"),
    ]
    assert table["level"].to_list() == ["warmup"] * 4 + ["missing", "warmup"]
    assert table["timestamp"][-1] - table["timestamp"][0] == 2 * MINUTE
    assert table["y"][1] == {"a": 3.0, "b": None}
    assert [step["step"] for step in table["forecast"][0]] == [1, 12, 36]
    assert table["model"].unique().to_list() == [engine.model]
    more = engine.score(["x"], [times[-1] + np.timedelta64(60, "s")], [[2, 2]])
    assert more["yhat"][0]["a"] is not None
    assert more["id"].to_list() == ["6"]


def test_score_takes_one_feature_and_epochs() -> None:
    engine = Engine(capacity=10, device="cpu")
    table = engine.score(["x"] * 3, [0, 60_000, 30_000], [1.0, 2.0, 3.0])
    assert table["level"].to_list() == ["warmup", "warmup", "late"]
    assert table.schema["y"] == pl.Float64
    with pytest.raises(DataError, match="reading 1"):
        engine.score(["x", "x"], [120_000, 120_000], [1.0, np.inf])
    assert engine.score(["x"], [180_000], [-1e30])["y"].to_list() == [-1e30]  # just not too large


@pytest.mark.slow
def test_the_package_gives_the_engine_without_importing_torch_for_help() -> None:
    code = "import sys, stream_gru; assert 'torch' not in sys.modules; assert stream_gru.Engine.__name__ == 'Engine'"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_any_step_may_be_asked_for() -> None:
    own, asked = Engine(capacity=1), Engine(capacity=1, horizons=(24, 2))
    assert own.steps == (1, 12, 36)
    waits = asked.steps[-1]
    assert asked.steps == (1, 2, 24, waits)
    value = np.sin(np.arange(200) / 4)
    time = 1_700_000_000_000 + 3_600_000 * np.arange(200)
    some, other = (each.score(["a"] * 200, time, value) for each in (own, asked))
    for column in ("yhat", "yhat_lower", "anomaly_score", "is_anomaly"):
        assert some[column].to_list() == pytest.approx(other[column].to_list(), abs=1e-6)
    ahead = [{step["step"]: step["yhat"] for step in table["forecast"][-1]} for table in (some, other)]
    assert ahead[0][waits] == pytest.approx(ahead[1][waits], abs=1e-6)
    assert set(ahead[1]) == {1, 2, 24, waits}


def test_all_names_are_there() -> None:
    for name in stream_gru.__all__:
        assert getattr(stream_gru, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        stream_gru.Motor  # noqa: B018 - asking for it is the test


def test_a_model_is_taken_by_its_name() -> None:
    assert (
        Engine("light", capacity=1).model == Engine(Path("light"), capacity=1).model == bundle.load(Path("light")).name
    )


def test_the_threads_of_torch_stay_as_they_are() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine = Engine("light", capacity=1)
        engine.score(wave(10))
        engine.forecast("pump-3", 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_frames_and_columns_give_the_same() -> None:
    readings = wave()
    columns = Engine(capacity=1).score(readings["series"].to_list(), readings["timestamp"], readings["value"])
    assert Engine(capacity=1).score(readings).equals(columns)
    times = readings.with_columns(pl.from_epoch("timestamp", "ms").dt.replace_time_zone("UTC"))
    assert Engine(capacity=1).score(times).equals(columns)


@pytest.mark.slow
def test_pandas_in_pandas_out() -> None:
    readings = wave()
    there = Engine(capacity=1).score(readings)
    frame = pd.DataFrame({name: readings[name].to_list() for name in readings.columns}, index=range(1000, 1200))
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="ms", utc=True).dt.tz_convert("Europe/Berlin")
    frame.loc[1150, "value"] = np.nan
    here = Engine(capacity=1).score(frame)
    assert isinstance(here, pd.DataFrame)
    assert here.columns.to_list() == there.columns
    assert here.index.to_list() == frame.index.to_list()
    np.testing.assert_array_equal(here["timestamp"], there["timestamp"])
    np.testing.assert_allclose(here["yhat"][:100], there["yhat"].to_numpy()[:100])
    assert here["level"][1150] == "missing"
    assert np.isnan(here["y"][1150])
    assert here["forecast"][1000][0]["step"] == 1


def test_features_and_covariates_are_columns_by_name(tmp_path: Path) -> None:
    made = pl.DataFrame(
        {"flow": [1.0, 2.0], "series": ["a", "a"], "pressure": [5, None], "timestamp": [START, START + 1]}
    )
    out = Engine("light", features=["flow", "pressure"], capacity=1).score(made)
    assert out["y"].to_list() == [{"flow": 1.0, "pressure": 5.0}, {"flow": 2.0, "pressure": None}]
    with pytest.raises(DataError, match="no column value; it has flow, series, pressure, timestamp"):
        Engine("light", capacity=1).score(made)


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        ({"value": ["warm"]}, "column value holds String; cast it to numbers"),
        ({"series": [None]}, "reading 0: the series is None"),
        ({"series": [""]}, "reading 0: the series is ''"),
        ({"value": [np.inf]}, "reading 0: .inf. is infinite"),
        ({"timestamp": [None]}, "reading 0: the time is missing"),
        ({"timestamp": ["2026-01-01"]}, "reading 0: .* is no time"),
    ],
)
def test_a_frame_that_is_wrong_is_refused_and_nothing_scored(frame: dict[str, Any], what: str) -> None:
    engine = Engine("light", capacity=1)
    with pytest.raises(DataError, match=what):
        engine.score(pl.DataFrame({"series": ["a"], "timestamp": [START], "value": [1.0], **frame}))
    assert engine.series == []


@pytest.mark.parametrize(
    ("series", "timestamp", "value", "what"),
    [
        (["a"], [START, START + 1], [1.0], "1 series, 2 times and 1 values"),
        (["a"], [START], [1.0, 2.0], r"value: numbers or None for 1 readings are wanted; they have the shape \(2,\)"),
        (["a"], [START], ["warm"], "reading 0: value 'warm' is no number"),
        (["a", "b"], [START] * 2, [1.0, 2.0], "2 series are more than capacity=1"),
    ],
)
def test_columns_that_are_wrong_are_refused(
    series: list[str], timestamp: list[int], value: list[Any], what: str
) -> None:
    with pytest.raises(DataError, match=what):
        Engine("light", capacity=1).score(series, timestamp, value)


def test_columns_need_times_and_values() -> None:
    with pytest.raises(DataError, match="give a data frame, or series, timestamp and value"):
        Engine("light", capacity=1).score(["a"])  # type: ignore[call-overload]  # what a user may try


def test_one_reading_is_what_the_topic_would_hold() -> None:
    engine, again = Engine("light", features=["a", "b"], capacity=1), Engine("light", features=["a", "b"], capacity=1)
    table = again.score(["x"] * 3, START + MINUTE * np.arange(3), [[1, 2], [3, None], [5, 6]])
    records = [
        engine.score_one("x", START, {"b": 2, "a": 1}),
        engine.score_one("x", datetime.fromtimestamp((START + MINUTE) / 1000, UTC), {"a": 3}),
        engine.score_one("x", START + 2 * MINUTE, [5, 6]),
    ]
    for record, row in zip(records, table.iter_rows(named=True), strict=True):
        assert (record.id, record.series, record.timestamp, record.level) == tuple(
            row[name] for name in ("id", "series", "timestamp", "level")
        )
        assert record.y == row["y"]
    assert records[1].yhat == pytest.approx(table["yhat"][1])
    with pytest.raises(DataError, match="value: 1 of the 2 numbers of a, b"):
        engine.score_one("x", START + 3 * MINUTE, 7.0)


@pytest.mark.parametrize("features", [1, 2])
def test_a_forecast_is_what_was_forecast_at_the_last_reading_and_more(features: int) -> None:
    engine = Engine(capacity=2, features=features)
    readings = wave()
    value = np.stack([readings["value"].to_numpy() * (f + 1) for f in range(features)], axis=1)
    if features == 2:
        value[-1, 1] = np.nan  # the second goes on from the one before
    names, times = ["a", "b"] * 100, readings["timestamp"]
    out = engine.score(names, times, value)
    before = engine.forecast("a", 1)
    ahead = engine.forecast(["b", "a"], 40)
    assert engine.forecast("a", 1).equals(before)  # nothing was learned
    assert ahead["series"].to_list() == ["b"] * 40 + ["a"] * 40
    assert ahead["step"].to_list() == [*range(1, 41)] * 2
    hours = np.diff(ahead["timestamp"].to_numpy()[:40]) / 3_600_000
    np.testing.assert_allclose(hours, 2, rtol=1e-6)  # each of the two has every second hour
    for row, name in ((198, "a"), (199, "b")):
        for step in out["forecast"][row]:
            (said,) = (
                ahead.filter(series=name, step=step["step"]).select("yhat", "yhat_lower", "yhat_upper").rows(named=True)
            )
            for column, number in said.items():
                if features == 1:
                    assert number == pytest.approx(step[column], rel=1e-6)
                else:
                    assert number["value_1"] == pytest.approx(step[column]["value_1"], rel=1e-6)
                    assert np.isfinite(number["value_2"])
    if features == 1:  # and it is right: the day repeats
        cycle = 20 + 5 * np.sin((198 + 2 * np.arange(1, 41)) * 2 * np.pi / 24)
        assert np.abs(ahead.filter(series="a")["yhat"].to_numpy() - cycle).mean() < 1.0


def test_a_model_of_few_steps_forecasts_those() -> None:
    engine = Engine("light", capacity=1)
    engine.score(wave())
    assert engine.forecast("pump-3", 24)["step"].to_list() == [1, 12]
    assert engine.forecast("pump-3", 1000)["step"].to_list() == [1, 12, 36]


def test_a_series_of_one_reading_has_no_times_ahead() -> None:
    engine = Engine("light", capacity=2)
    engine.score(["a"], [START], [1.0])
    assert engine.forecast("a", 1)["timestamp"].to_list() == [None]
    engine.score(["b"], [START], [None])
    assert engine.forecast("b", 1)["yhat"].to_list() == [None]
    assert engine.forecast(["b", "a"], 1)["yhat"].to_list() == [None, *engine.forecast("a", 1)["yhat"]]


@pytest.mark.parametrize(
    ("series", "steps", "what"), [("x", 1, "no reading of series 'x'"), ("a", 0, "steps: 0"), ("a", 1001, "1,000")]
)
def test_a_forecast_that_cannot_be_had(series: str, steps: int, what: str) -> None:
    engine = Engine("light", capacity=1)
    engine.score(["a"], [START], [1.0])
    with pytest.raises(DataError, match=what):
        engine.forecast(series, steps)


def test_a_reset_series_starts_anew_and_others_go_on() -> None:
    engine, fresh = Engine("light", capacity=2), Engine("light", capacity=2)
    readings = wave()
    engine.score(["a", "b"] * 100, readings["timestamp"], readings["value"])
    engine.reset("a")
    assert engine.series == ["b"]
    engine.score(["c"], [START], [1.0])  # there is room again
    engine.reset("c")
    later = [START + 10**9, START + 10**9]
    again, first = engine.score(["a", "b"], later, [5.0, 5.0]), fresh.score(["a", "b"], later, [5.0, 5.0])
    assert again["yhat"].to_list()[0] is None
    assert again["yhat"].to_list()[1] is not None
    assert again["forecast"][0].to_list() == first["forecast"][0].to_list()
    assert engine.forecast("a", 12)["yhat"].to_list() == fresh.forecast("a", 12)["yhat"].to_list()
    with pytest.raises(DataError, match="no reading of series 'c'"):
        engine.reset(["a", "c"])
    assert engine.series == ["b", "a"]


@pytest.mark.parametrize("features", [1, 2])
def test_what_is_saved_goes_on_as_if_it_had_never_stopped(features: int, tmp_path: Path) -> None:
    value = np.random.default_rng(1).normal(size=(300, features)).cumsum(0)
    names, times = [f"s{i % 3}" for i in range(300)], START + MINUTE * np.arange(300)
    whole = Engine("light", features=features, capacity=3)
    some = Engine("light", features=features, capacity=3)
    expected = whole.score(names, times, value)[200:]
    some.score(names[:200], times[:200], value[:200])
    some.save(tmp_path / "rows.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.safetensors"]
    again = Engine("light", features=features, capacity=3)
    again.score(["other"], [START], np.zeros((1, features)))
    again.load(str(tmp_path / "rows.safetensors"))
    assert again.series == ["s0", "s1", "s2"]
    assert again.forecast("s1", 12).equals(some.forecast("s1", 12))
    assert again.score(names[200:], times[200:], value[200:]).equals(expected)


def test_a_file_of_another_model_or_none_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    engine = Engine("light", capacity=2)
    engine.score(["a", "b"], [START] * 2, [1.0, 2.0])
    engine.save(file := tmp_path / "rows.safetensors")
    for other, what in (
        (Engine(capacity=2), "belongs to the model light@.*, not to zero-shot@"),
        (Engine("light", features=["x"], capacity=2), "holds readings of value; the features of this engine are x"),
        (Engine("light", capacity=1), "2 series are more than capacity=1"),
    ):
        other.score(["own"], [START], [1.0])
        with pytest.raises(DataError, match=what):
            other.load(file)
        assert other.series == ["own"]
    (tmp_path / "text").write_text("rows")
    for wrong in (tmp_path / "text", tmp_path / "nothing", bundle.SHIPPED["light"] / "weights.safetensors"):
        with pytest.raises(DataError, match=str(wrong)):
            engine.load(wrong)
    with pytest.raises(OutputError, match="can't be written"):
        engine.save(tmp_path / "no-folder" / "rows")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    engine = Engine("light", capacity=1)
    engine.score(["a"], [START], [1.0])
    engine.save(file := tmp_path / "rows")
    whole = bytearray(file.read_bytes())
    whole[-100] ^= 1
    file.write_bytes(whole)
    with pytest.raises(DataError, match="is damaged"):
        engine.load(file)


def test_saving_leaves_links_and_what_is_no_file_alone(tmp_path: Path) -> None:
    engine = Engine("light", capacity=1)
    engine.score(["a"], [START], [1.0])
    (tmp_path / "link").symlink_to(tmp_path / "target")
    engine.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o666 & ~umask()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OutputError, match="no ordinary file"):
            engine.save(path)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "target"]


def umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def test_what_was_loaded_makes_no_room_for_others(tmp_path: Path) -> None:
    engine, again = Engine("light", capacity=2), Engine("light", capacity=2)
    engine.score(["a", "b"], [START] * 2, [1.0, 2.0])
    engine.save(tmp_path / "rows")
    again.load(tmp_path / "rows")
    for minute in range(1, 5):  # b was not seen for long
        again.score_one("a", START + MINUTE * minute, 1.0)
    with pytest.raises(DataError, match="3 series are more than capacity=2"):
        again.score(["c"], [START], [1.0])
    assert again.series == ["a", "b"]
