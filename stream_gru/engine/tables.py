"""Readings in a long data frame of any library that narwhals knows, and results as a frame of the same one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import polars as pl

from stream_gru.columns import Floats
from stream_gru.errors import DataError


class Table(NamedTuple):
    """N readings of F features and C covariates."""

    series: list[str]
    timestamp: Iterable[Any]  # as `times.epoch_ms` takes it
    value: Floats  # (N, F)
    covariates: Floats  # (N, C)


def read(frame: nw.DataFrame[Any], features: Sequence[str], covariates: Sequence[str]) -> Table:
    """The columns `series`, `timestamp`, and one for each feature and covariate; null is a missing value.

    Raises `DataError` for a column that is not there, and for one that does not hold what it should.
    """
    wanted = ["series", "timestamp", *features, *covariates]
    if missing := [name for name in wanted if name not in frame.columns]:
        raise DataError(
            f"the frame has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}. Rename its "
            "columns, make one of its index, or tell the engine the names of the features"
        )
    series = frame["series"].to_list()
    for row, name in enumerate(series):
        if not isinstance(name, str) or not name:
            raise DataError(f"reading {row}: the series is {name!r}; a name is a text that is not empty")
    numbers = [_numbers(frame, names) for names in (features, covariates)]
    return Table(series, frame["timestamp"].to_native(), *numbers)


def like(frame: nw.DataFrame[Any], table: pl.DataFrame) -> Any:
    """`table` as a frame of the same library as `frame`, and with its index, if it has one."""
    if frame.implementation.is_polars():
        return table
    columns = {
        column.name: column.to_list() if column.dtype.is_nested() or column.dtype == pl.String else column.to_numpy()
        for column in table.iter_columns()
    }
    made = nw.from_dict(columns, backend=frame.implementation).to_native()
    if (index := nw.maybe_get_index(frame)) is not None:
        made.index = index
    return made


def _numbers(frame: nw.DataFrame[Any], names: Sequence[str]) -> Floats:
    """(N, len(names)), NaN for null."""
    for name in names:
        if not frame[name].dtype.is_numeric() and not frame[name].is_null().all():
            raise DataError(
                f"column {name} holds {frame[name].dtype}; cast it to numbers first, null where there is none"
            )
    columns = [frame[name].cast(nw.Float64).to_numpy() for name in names]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.empty((len(frame), 0))
