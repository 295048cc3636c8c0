"""Forecasts as a polars table with the columns of the output record, for notebooks and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stream_gru.columns import LEVEL_NAMES, Floats, Forecasts, Ints
from stream_gru.engine.row import NEVER, Structured
from stream_gru.records.output import COLUMNS, INTERVAL
from stream_gru.records.schema import ColumnKind, Presence


def frame(
    series: Sequence[str],
    timestamp: Ints,
    ids: Sequence[str],
    forecasts: Forecasts,
    *,
    features: Sequence[str],
    steps: Sequence[int],
    model: str,
) -> pl.DataFrame:
    """N readings and their forecasts as a table of N rows, names and types as in `records.OutputRecord`.

    With several features `y`, `yhat` and the bounds are structs by the feature's name, and there are columns with what
    each one has to do with an anomaly. What doesn't exist is null.
    """
    table = pl.DataFrame({"series": series, "timestamp": timestamp})
    given = {
        "series": pl.col("series").cast(pl.String),
        "timestamp": pl.col("timestamp").cast(pl.Int64),
        "model": pl.lit(model),
        "id": pl.lit(pl.Series(ids, dtype=pl.String)),
    }
    return table.select(
        (
            given[name]
            if name in given
            else _column(column.kind, getattr(forecasts, column.source or name), features, steps)
        ).alias(name)
        for name, column in COLUMNS.items()
        if column.when is not Presence.EXPLAINED or len(features) > 1
    )


def outlook(
    series: Sequence[str], heads: Structured, steps: Sequence[int], ahead: Floats, features: Sequence[str]
) -> pl.DataFrame:
    """Forecasts (S, 3, N, F) of N series from where they are, a row for each series and step.

    The time of a step is the last one's plus so many usual intervals, null where none is known.
    """
    n, k = len(series), len(steps)
    step = np.tile(np.asarray(steps, np.int64), n)
    last, interval = (np.repeat(heads[name], k) for name in ("timestamp", "interval"))
    by_row = ahead.transpose(1, 2, 0, 3).reshape(3, n * k, len(features))
    known = (interval > 0) & (last != NEVER)
    timestamp = np.where(known, last, 0) + np.rint(step * interval).astype(np.int64)
    return pl.DataFrame({"series": np.repeat(np.array(series, object), k).tolist(), "step": step}).select(
        pl.col("series").cast(pl.String),
        pl.col("step"),
        pl.when(pl.lit(pl.Series(known))).then(pl.lit(pl.Series(timestamp))).alias("timestamp"),
        *(_quantity(part, features).alias(name) for name, part in zip(INTERVAL, by_row, strict=True)),
    )


def _column(kind: ColumnKind, values: npt.NDArray[Any], features: Sequence[str], steps: Sequence[int]) -> pl.Expr:
    """A column of N forecasts."""
    if kind is ColumnKind.STEPS:
        return pl.concat_list(_step(step, values[:, k], features) for k, step in enumerate(steps))
    if kind in {ColumnKind.READING, ColumnKind.QUANTITY}:
        return _quantity(values, features)
    if kind in {ColumnKind.NUMBER, ColumnKind.SCORE}:
        return _number(values)
    if kind is ColumnKind.LEVEL:
        return pl.lit(pl.Series(np.array(LEVEL_NAMES)[values], dtype=pl.String))
    return pl.lit(pl.Series(values))


def _step(step: int, ahead: Floats, features: Sequence[str]) -> pl.Expr:
    """(N, 3, F) -> a struct as `records.ForecastStep`."""
    parts = (_quantity(ahead[:, part], features).alias(name) for part, name in enumerate(INTERVAL))
    return pl.struct(pl.lit(step, pl.Int64).alias("step"), *parts)


def _number(column: Floats) -> pl.Expr:
    return pl.lit(pl.Series(np.ascontiguousarray(column), nan_to_null=True))


def _quantity(column: Floats, features: Sequence[str]) -> pl.Expr:
    """(N, F) -> a number, or a struct by feature name where there are several."""
    if len(features) == 1:
        return _number(column[:, 0])
    return pl.struct(_number(column[:, f]).alias(feature) for f, feature in enumerate(features))
