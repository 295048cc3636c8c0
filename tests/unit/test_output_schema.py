"""The record's own notes are the one list of the output's columns: they agree with its types and with `Forecasts`."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import msgspec
import numpy as np
import polars as pl
import pytest

from stream_gru.columns import Forecasts, waves
from stream_gru.engine.frame import frame
from stream_gru.records.output import COLUMNS, STEP_COLUMNS, ForecastStep, OutputRecord, Quantity, Shares, describe
from stream_gru.records.schema import TYPES, Kind, When
from tests.unit.test_records import encode, forecasts

GIVEN = {Kind.TEXT, Kind.TIME}  # by the caller
INTERNAL = {"closes", "quantiles"}  # what the worker and the evaluation read, and no record holds


def test_every_field_of_the_record_has_a_note() -> None:
    assert list(COLUMNS) == list(OutputRecord.__struct_fields__)
    assert list(STEP_COLUMNS) == list(ForecastStep.__struct_fields__)
    assert set(TYPES) == set(Kind)


def test_every_field_of_the_forecasts_has_one_column() -> None:
    sources = [column.source or name for name, column in COLUMNS.items() if column.kind not in GIVEN]
    assert sorted(sources) == sorted({field.name for field in fields(Forecasts)} - INTERNAL)


def test_kinds_are_those_of_the_types() -> None:
    wanted: dict[Kind, object] = {
        **{Kind.TEXT: str, Kind.LEVEL: str, Kind.TIME: int, Kind.FLAG: bool, Kind.COUNT: int, Kind.STEP: int},
        **{Kind.NUMBER: float | None, Kind.SCORE: float | None, Kind.READING: Quantity, Kind.QUANTITY: Quantity},
        Kind.STEPS: tuple[ForecastStep, ...],
    }
    for struct, columns in ((OutputRecord, COLUMNS), (ForecastStep, STEP_COLUMNS)):
        for name, hint in get_type_hints(struct).items():
            column = columns[name]
            expected = Shares if column.when is When.EXPLAINED else wanted[column.kind]
            assert hint == (expected if column.when is When.ALWAYS else expected | msgspec.UnsetType), name


@pytest.mark.parametrize("features", [1, 2])
def test_table_and_record_have_the_same_columns(features: int) -> None:
    names = ("a", "b")[:features]
    table = frame(
        ["x", "s"], np.array([1, 2]), ["i", "j"], forecasts(features), features=names, steps=(8,), model="default"
    )
    shown = [name for name, column in COLUMNS.items() if features > 1 or column.when is not When.EXPLAINED]
    assert table.columns == shown
    kinds = dict(zip(shown, table.dtypes, strict=True))
    assert {name for name, kind in kinds.items() if isinstance(kind, pl.Struct)} == (
        {name for name in shown if COLUMNS[name].kind in {Kind.READING, Kind.QUANTITY}} if features > 1 else set()
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
    for row in rows:
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
