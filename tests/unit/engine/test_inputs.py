from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from stream_gru import BundleError, DataError, Detector, Engine, Gaps, SettingsError
from tests.support.waves import MINUTE, START, wave

TWO = ["flow", "pressure"]


@pytest.mark.parametrize(
    ("features", "value"),
    [
        (1, np.ones((1, 2))),
        (1, np.ones((2, 2))),
        (1, ["5", 1.0]),
        (1, [b"1", 1.0]),
        (1, [True, False]),
        (1, [10**400, 1.0]),
        (1, 5.0),
        (TWO, np.ones(4)),
        (TWO, np.ones((4, 1))),
        (TWO, np.ones((2, 3))),
        (TWO, [[1, 2], [3]]),
        (TWO, {"flow": [1.0, 2.0], "pressure": [1.0, 2.0]}),
    ],
)
def test_values_of_another_shape_or_kind_are_refused(features: Any, value: Any) -> None:
    engine = Engine("light", features=features, capacity=2)
    with pytest.raises(DataError, match="value"):
        engine.score(["a", "b"], [START] * 2, value)
    assert engine.series == []


def test_what_libraries_call_missing_is_missing() -> None:
    for value in (
        np.ma.masked_array([1.0, 2.0], [False, True]),
        [1.0, pd.NA],
        pd.Series([1, None], dtype="Int64"),
        pl.Series([1.0, None]),
        [Decimal("1.0"), None],
    ):
        out = Engine("light", capacity=2).score(["a", "b"], [START] * 2, value)
        assert out["level"].to_list() == ["warmup", "missing"], value


@pytest.mark.parametrize("series", [5, None, b"a", [5], [None], [b"a"], [["a"]], [""], ["\ud800"]])
def test_names_that_are_none_are_refused(series: Any) -> None:
    engine = Engine("light", capacity=2)
    with pytest.raises(DataError, match="name"):
        engine.score(series, [START], [1.0])
    with pytest.raises(DataError, match="name"):
        engine.score_one(series, START, 1.0)
    with pytest.raises(DataError, match="name"):
        engine.score("a", [START], [1.0])
    for call in (engine.reset, lambda names: engine.forecast(names, 1)):
        with pytest.raises(DataError, match=r"name|no reading"):
            call(series)
        with pytest.raises(DataError, match="no series is named"):
            call([])
    assert engine.series == []


@pytest.mark.parametrize("value", ["5", [1.0, 2.0], {"flow": 1.0}, {}, pd.Series({"flow": 1.0}), True, b"1"])
def test_one_reading_that_is_wrong_is_refused_and_nothing_done(value: Any) -> None:
    engine, other = Engine("light", capacity=1), Engine("light", capacity=1)
    for each in (engine, other):
        each.score_one("a", START, 1.0)
    with pytest.raises(DataError, match="value"):
        engine.score_one("a", START + MINUTE, value)
    for time in ([START], None, "now"):
        with pytest.raises(DataError, match="time"):
            engine.score_one("a", time, 1.0)  # type: ignore[arg-type]  # what a user may try
    assert engine.score_one("a", START + MINUTE, 2.0) == other.score_one("a", START + MINUTE, 2.0)


def test_a_row_of_pandas_is_read_by_its_names() -> None:
    record = Engine("light", features=TWO, capacity=1).score_one("a", START, pd.Series({"pressure": 2.0, "flow": 1.0}))
    assert record.y == {"flow": 1.0, "pressure": 2.0}


@pytest.mark.parametrize("steps", [3.5, 3.0, True, "3", None, 0, 1001])
def test_steps_are_whole_numbers(steps: Any) -> None:
    engine = Engine("light", capacity=1)
    engine.score_one("a", START, 1.0)
    with pytest.raises(DataError, match=r"steps: .* is no whole number between 1 and 1,000"):
        engine.forecast("a", steps)
    assert len(engine.forecast(["a", "a"], np.int64(1))) == 1  # type: ignore[arg-type]  # numpy counts too


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("features", value) for value in (0, -1, [], ["a", "a"], ["series"], ["timestamp"], [1, 2], [""], None, 1.0)),
        *(("capacity", value) for value in (0, -1, 1.5, "5", True, 10**15)),
        *(("threads", value) for value in (0, 1.5, True)),
        *(("horizons", value) for value in (12, ["12"], "12", [1], [1001])),
        *(("detector", value) for value in ({"sensitivity": 1}, "x", Gaps())),
        *(("gaps", value) for value in ("impute", Detector())),
        *(("device", value) for value in ("gpu", None, "cuda:x")),
    ],
)
def test_options_that_cannot_be_meant_are_said(option: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=option):
        Engine(**{"capacity": 1, option: value})


def test_one_name_is_a_feature_and_numbers_of_numpy_count() -> None:
    assert Engine("light", features="flow", capacity=1).features == ("flow",)
    assert Engine("light", features=np.int64(2), capacity=1).features == ("value_1", "value_2")  # type: ignore[arg-type]


def test_a_model_that_is_none_is_said() -> None:
    for wrong in (5, "no-such-model", b"light"):
        with pytest.raises(BundleError, match=r"bundle|no-such-model"):
            Engine(wrong, capacity=1)  # type: ignore[arg-type]  # what a user may try


def test_frames_that_cannot_be_read_are_said() -> None:
    engine = Engine("light", capacity=1)
    readings = wave(3)
    twice = pd.DataFrame([["a", START, 1.0, 2.0]], columns=["series", "timestamp", "value", "value"])
    odd: list[tuple[Any, str]] = [
        (readings.lazy(), "collect"),
        (twice, "can't be read"),
        (
            pd.DataFrame({"series": ["a"], "timestamp": [START], "value": pd.array([True], "boolean")}),
            "cast it to numbers",
        ),
        (pl.DataFrame(), "it has none"),
    ]
    for frame, what in odd:
        with pytest.raises(DataError, match=what):
            engine.score(frame)
    with pytest.raises(DataError, match="give it alone"):
        engine.score(readings, readings["timestamp"], readings["value"])  # type: ignore[call-overload]  # as above
    assert len(engine.score(readings.clear())) == 0


@pytest.mark.parametrize("path", [None, 7, b"rows", ""])
def test_a_path_that_is_none_is_said(path: Any) -> None:
    engine = Engine("light", capacity=1)
    for call in (engine.save, engine.load):
        with pytest.raises(DataError, match="no path"):
            call(path)
