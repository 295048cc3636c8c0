"""The engine over history files, without Kafka or Redis: one table of output records a file, in the order of its rows.

All series of all files are stepped side by side, so many short files cost little more than the longest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import polars as pl

from stream_gru.columns import Floats, Forecasts, Ints, Readings, waves
from stream_gru.engine.frame import frame
from stream_gru.engine.stepper import MAX_ABS_VALUE, Stepper
from stream_gru.errors import DataError
from stream_gru.history import files as history

_PORTION_READINGS = 50_000  # readings stepped between two reports of progress


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """What was made of one file."""

    file: Path
    table: Path
    plot: Path | None
    readings: int
    anomalies: int  # readings
    alerts: int


def read(
    files: Sequence[Path], time: str, values: Sequence[str], key: str | None, covariates: Sequence[str] = ()
) -> list[history.History]:
    """The history in `files`. Raises `DataError` for what the stream would not admit either, naming file and row."""
    tables = []
    for file in files:
        table = history.read(file, time, values, key, covariates)
        with np.errstate(invalid="ignore"):
            rows = np.flatnonzero((np.abs(_columns(table)) > MAX_ABS_VALUE).any(1))
        if len(rows):
            more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
            raise DataError(f"{file}: row {rows[0] + 1} holds a value beyond {MAX_ABS_VALUE:g}{more}")
        tables.append(table)
    return tables


def admit(engine: Stepper, tables: Sequence[history.History]) -> Readings:
    """The rows of all tables, one after another, of series that are new to `engine`. The same key in two tables is two
    series."""
    slots = []
    for handle, table in enumerate(tables):
        engine.arena.open(handle)
        slots.append(engine.arena.admit(handle, [name.encode() for name in table.series]))
    return Readings(
        np.concatenate(slots),
        np.concatenate([np.arange(len(table)) for table in tables]),
        np.concatenate([table.timestamp for table in tables]),
        np.concatenate([_columns(table) for table in tables]),
    )


def score(engine: Stepper, tables: Sequence[history.History], tell: Callable[[int], None]) -> list[Forecasts]:
    """Forecasts for each table, beside its rows. The same key in two files is two series."""
    readings = admit(engine, tables)
    parts, order = [], []
    for index in _portions(readings.slot):
        parts.append(engine.step(readings.take(index)))
        order.append(index)
        tell(len(index))
    if not parts:
        return [engine.step(readings) for _ in tables]
    forecasts = in_order(parts, order)
    bounds = np.cumsum([0, *map(len, tables)]).tolist()
    return [forecasts.take(slice(a, b)) for a, b in pairwise(bounds)]


def _columns(table: history.History) -> Floats:
    return np.concatenate([table.value, table.covariates], axis=1)


def in_order(parts: Sequence[Forecasts], order: Sequence[Ints]) -> Forecasts:
    """Forecasts of portions, whose places are in `order`, as one."""
    whole = Forecasts(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Forecasts)))
    return whole.take(np.argsort(np.concatenate(order)))


def _portions(slot: Ints) -> Iterator[Ints]:
    """Whole waves together, about `_PORTION_READINGS` readings at a time."""
    held: list[Ints] = []
    for wave in waves(slot):
        held.append(wave)
        if sum(map(len, held)) >= _PORTION_READINGS:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def run(
    engine: Stepper,
    files: Sequence[Path],
    tables: Sequence[history.History],
    out: Path,
    *,
    kind: Literal["csv", "parquet"] = "csv",
    plot: bool = False,
    tell: Callable[[int], None] = lambda _: None,
) -> list[BacktestResult]:
    """Score `tables`, read from `files`, and write `out`/NAME.csv or .parquet for each, and NAME.png."""
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for file, name, table, forecasts in zip(files, _names(files), tables, score(engine, tables, tell), strict=True):
        records = frame(
            table.series,
            table.timestamp,
            [f"{name}-{row + 1}" for row in range(len(table))],
            forecasts,
            features=engine.features,
            steps=engine.steps,
            model=engine.bundle.name,
        )
        target = out / f"{name}.{kind}"
        if kind == "csv":
            nested = [column for column, type_ in records.schema.items() if type_.is_nested()]
            records.with_columns(_json(records[column]) for column in nested).write_csv(target)
        else:
            records.write_parquet(target)
        picture = None
        if plot and len(table):
            from stream_gru.history.plot import draw

            picture = draw(out / f"{name}.png", name, table, forecasts, engine.features)
        flags, alerts = (int(np.count_nonzero(column)) for column in (forecasts.is_anomaly, forecasts.alert))
        results.append(BacktestResult(file, target, picture, len(table), flags, alerts))
    return results


def _names(files: Sequence[Path]) -> list[str]:
    """The names of the files without their ending; with the folder's in front, or a number, where two are the same."""
    names = [file.stem for file in files]
    twice = {name for name in names if names.count(name) > 1}
    names = [
        f"{file.resolve().parent.name}-{name}" if name in twice else name
        for file, name in zip(files, names, strict=True)
    ]
    return [f"{name}-{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _json(column: pl.Series) -> pl.Series:
    """Structs and lists as JSON text: a CSV cell holds nothing nested."""
    return pl.Series(column.name, [msgspec.json.encode(value).decode() for value in column.to_list()], pl.String)
