"""Readings in a long data frame of any library that narwhals knows, and results as a frame of the same one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import polars as pl

from stream_gru.columns import Floats
from stream_gru.engine import inputs
from stream_gru.errors import DataError


class ReadingTable(NamedTuple):
    """N readings of F features and C covariates."""

    series: list[str]
    timestamp: Iterable[Any]  # as `times.epoch_ms` takes it
    value: Floats  # (N, F)
    covariates: Floats  # (N, C)


def of(given: Any) -> nw.DataFrame[Any] | None:
    """A data frame, if `given` is one. Raises `DataError` for one that can't be read column by column."""
    with inputs.explained("the frame can't be read"):
        frame = nw.from_native(given, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        raise DataError("the frame is lazy; collect() it first")
    return frame if isinstance(frame, nw.DataFrame) else None


def read(frame: nw.DataFrame[Any], features: Sequence[str], covariates: Sequence[str]) -> ReadingTable:
    """The columns `series`, `timestamp`, and one for each feature and covariate; null is a missing value.

    Raises `DataError` for a column that is not there, and for one that does not hold what it should.
    """
    with inputs.explained("the frame can't be read"):
        there = frame.columns
        missing = [name for name in (*inputs.RESERVED, *features, *covariates) if name not in there]
        if missing:
            raise DataError(
                f"the frame has no column {', '.join(missing)}; it has {', '.join(map(str, there)) or 'none'}. Rename "
                "its columns, make one of its index, or tell the engine the names of the features"
            )
        numbers = [_numbers(frame, names) for names in (features, covariates)]
        return ReadingTable(inputs.names(frame["series"].to_list()), frame["timestamp"].to_native(), *numbers)


def like(frame: nw.DataFrame[Any], table: pl.DataFrame) -> Any:
    """`table` as a frame of the same library as `frame`, and with its index, if it has one."""
    if frame.implementation.is_polars():
        return table
    if frame.implementation.is_pyarrow():
        return table.to_arrow()
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
            raise DataError(f"column {name} holds {frame[name].dtype}; cast it to numbers, null where there is none")
    columns = [frame[name].cast(nw.Float64).to_numpy() for name in names]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.empty((len(frame), 0))
