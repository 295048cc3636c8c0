"""The output record that other programs rely on: its names, their order, and how it reads.

The record's own notes are the one list of the output's columns: they agree with its types and with `Forecasts`.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import get_type_hints

import msgspec
import numpy as np
import polars as pl
import pytest

from stream_gru import codecs
from stream_gru.columns import Forecasts, Level, waves
from stream_gru.engine.frame import frame
from stream_gru.errors import DataError
from stream_gru.records.output import (
    COLUMNS,
    STEP_COLUMNS,
    ForecastStep,
    OutputRecord,
    Quantity,
    Shares,
    decode_output,
    describe,
)
from stream_gru.records.schema import TYPES, ColumnKind, Presence
from stream_gru.settings import Input

NAMES = [
    "series",
    "timestamp",
    "y",
    "yhat",
    "yhat_lower",
    "yhat_upper",
    "anomaly_score",
    "anomaly_grade",
    "is_anomaly",
    "alert",
    "alert_score",
    "level",
    "forecast",
    "model",
    "id",
]

GIVEN = {ColumnKind.TEXT, ColumnKind.TIME}  # by the caller
INTERNAL = {"closes", "quantiles"}  # what the worker and the evaluation read, and no record holds


def forecasts(features: int) -> Forecasts:
    def column(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.stack([np.array([x, np.nan]) for x in values], axis=1)[:, :features]

    flag = np.array([True, False])
    return Forecasts(
        y=column(21.5, 0.1),
        yhat=column(20.0, 0.2),
        lower=column(19.0, 0.3),
        upper=column(21.0, 0.4),
        spread=column(np.nan, np.nan) if features == 1 else column(0.25, 0.1),
        ahead=np.arange(12.0).reshape(2, 1, 3, 2)[..., :features],
        anomaly_score=np.array([1.25, np.nan]),
        anomaly_grade=np.array([0.5, np.nan]),
        is_anomaly=flag,
        alert_score=np.array([1.25, np.nan]),
        alert=flag,
        closes=~flag,
        relevant_attribution=column(0.75, 0.25),
        expected_values=column(20.5, 0.3),
        level=np.array([Level.ANOMALY, Level.MISSING], np.int8),
        quantiles=np.zeros((2, 3, features)),
        imputed=np.array([0, 0]) if features == 1 else np.array([0, 3]),
    )


def encode(features: int) -> list[bytes]:
    codec = codecs.load(Input(values=("a", "b")[:features]), (8,))
    series = ['"é"\n'.encode(), b"s"]
    return codec.encode(series, np.array([1, 2]), ["readings-0-1", "readings-0-2"], "default", forecasts(features))


def test_one_value() -> None:
    first, second = encode(1)
    assert list(json.loads(first)) == list(json.loads(second)) == NAMES == list(OutputRecord.__struct_fields__)[:-4]
    assert decode_output(first) == OutputRecord(
        series='"é"\n',
        timestamp=1,
        y=21.5,
        yhat=20.0,
        yhat_lower=19.0,
        yhat_upper=21.0,
        anomaly_score=1.25,
        anomaly_grade=0.5,
        is_anomaly=True,
        alert=True,
        alert_score=1.25,
        level="anomaly",
        forecast=(ForecastStep(8, 0.0, 2.0, 4.0),),
        model="default",
        id="readings-0-1",
    )
    missing = json.loads(second)
    assert [missing[name] for name in NAMES if missing[name] is None] == [None] * 7
    assert missing["level"] == "missing"
    assert list(missing["forecast"][0]) == ["step", "yhat", "yhat_lower", "yhat_upper"]


def test_several_values_are_objects_by_name() -> None:
    first, second = (json.loads(record) for record in encode(2))
    assert list(first) == [*NAMES, "yhat_spread", "relevant_attribution", "expected_values"]
    assert first["relevant_attribution"] == {"a": 0.75, "b": 0.25}
    assert first["expected_values"] == {"a": 20.5, "b": 0.3}
    assert list(second) == [*NAMES, "imputed"]  # nothing there to be apart on
    assert second["imputed"] == 3
    assert first["yhat_spread"] == {"a": 0.25, "b": 0.1}
    assert first["y"] == {"a": 21.5, "b": 0.1}
    assert first["yhat_upper"] == {"a": 21.0, "b": 0.4}
    assert first["forecast"] == [
        {"step": 8, "yhat": {"a": 0, "b": 1}, "yhat_lower": {"a": 2, "b": 3}, "yhat_upper": {"a": 4, "b": 5}}
    ]
    assert second["y"] == {"a": None, "b": None}
    assert (first["anomaly_score"], second["anomaly_score"]) == (1.25, None)


def test_a_feature_without_a_spread_leaves_that_of_the_others() -> None:
    some = forecasts(2)
    some.spread[0, 1] = some.expected_values[0, 0] = np.nan
    codec = codecs.load(Input(values=("a", "b")), (8,))
    first = json.loads(codec.encode([b"a", b"b"], np.array([1, 2]), ["x", "y"], "m", some)[0])
    assert first["yhat_spread"] == {"a": 0.25, "b": None}
    assert first["expected_values"] == {"a": None, "b": 0.3}


def test_rounding_never_carries_a_score_over_one() -> None:
    several = forecasts(1)
    several.anomaly_score[:] = 1 + 2e-10, 1 - 2e-10
    codec = codecs.load(Input(), (8,))
    records = codec.encode([b"a", b"b"], np.array([1, 2]), ["x", "y"], "m", several)
    above, below = (decode_output(record).anomaly_score for record in records)
    assert above is not None
    assert below is not None
    assert above > 1 >= below


def test_fields_of_a_later_version_are_passed_over() -> None:
    first, _ = encode(1)
    assert decode_output(first[:-1] + b',"later":{"x":[1]}}') == decode_output(first)


@pytest.mark.parametrize("payload", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"series":1}'])
def test_other_bytes_are_an_error_of_data(payload: bytes) -> None:
    with pytest.raises(DataError, match="no output record"):
        decode_output(payload)


def test_every_field_of_the_record_has_a_note() -> None:
    assert list(COLUMNS) == list(OutputRecord.__struct_fields__)
    assert list(STEP_COLUMNS) == list(ForecastStep.__struct_fields__)
    assert set(TYPES) == set(ColumnKind)


def test_every_field_of_the_forecasts_has_one_column() -> None:
    sources = [column.source or name for name, column in COLUMNS.items() if column.kind not in GIVEN]
    assert sorted(sources) == sorted({field.name for field in fields(Forecasts)} - INTERNAL)


def test_kinds_are_those_of_the_types() -> None:
    wanted: dict[ColumnKind, object] = {
        **{
            ColumnKind.TEXT: str,
            ColumnKind.LEVEL: str,
            ColumnKind.TIME: int,
            ColumnKind.FLAG: bool,
            ColumnKind.COUNT: int,
            ColumnKind.STEP: int,
        },
        **{
            ColumnKind.NUMBER: float | None,
            ColumnKind.SCORE: float | None,
            ColumnKind.READING: Quantity,
            ColumnKind.QUANTITY: Quantity,
        },
        ColumnKind.STEPS: tuple[ForecastStep, ...],
    }
    words: dict[object, str] = {str: "text", int: "integer", bool: "boolean"}
    for struct, columns in ((OutputRecord, COLUMNS), (ForecastStep, STEP_COLUMNS)):
        for name, hint in get_type_hints(struct).items():
            column = columns[name]
            expected = Shares if column.when is Presence.EXPLAINED else wanted[column.kind]
            assert hint == (expected if column.when is Presence.ALWAYS else expected | msgspec.UnsetType), name
            if expected in words:
                assert TYPES[column.kind] == words[expected], name


@pytest.mark.parametrize("features", [1, 2])
def test_table_and_record_have_the_same_columns(features: int) -> None:
    names = ("a", "b")[:features]
    table = frame(
        ["x", "s"], np.array([1, 2]), ["i", "j"], forecasts(features), features=names, steps=(8,), model="default"
    )
    shown = [name for name, column in COLUMNS.items() if features > 1 or column.when is not Presence.EXPLAINED]
    assert table.columns == shown
    kinds = dict(zip(shown, table.dtypes, strict=True))
    assert {name for name, kind in kinds.items() if isinstance(kind, pl.Struct)} == (
        {name for name in shown if COLUMNS[name].kind in {ColumnKind.READING, ColumnKind.QUANTITY}}
        if features > 1
        else set()
    )
    for row, payload in zip(table.iter_rows(named=True), encode(features), strict=True):
        record = msgspec.json.decode(payload)
        assert {name: row[name] for name in record if name not in {"series", "timestamp", "id"}} == {
            name: value for name, value in record.items() if name not in {"series", "timestamp", "id"}
        }


def test_every_column_is_described() -> None:
    rows = list(describe())
    assert [row.name for row in rows if "[]" not in row.name] == list(COLUMNS)
    assert [row.name for row in rows if "[]" in row.name] == [f"forecast[].{name}" for name in STEP_COLUMNS]
    parts = {f"forecast[].{name}": column for name, column in STEP_COLUMNS.items()}
    for row in rows:
        column = COLUMNS.get(row.name) or parts[row.name]
        assert row[1:] == (TYPES[column.kind], column.when.value, column.description)
        assert row.description.endswith("."), row
        assert row.type, row
        assert row.when, row


def test_parts_are_joined_in_the_order_of_the_readings() -> None:
    whole = forecasts(2).take(np.array([0, 1, 1, 0, 1]))
    whole.imputed[:] = np.arange(5)
    places = list(waves(np.array([7, 7, 8, 7, 9])))
    joined = Forecasts.join([(index, whole.take(index)) for index in places], 5)
    for field in fields(Forecasts):
        np.testing.assert_array_equal(getattr(joined, field.name), getattr(whole, field.name))
