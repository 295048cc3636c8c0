"""History files, CSV or Parquet, as columns of readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stream_gru.columns import Floats, Ints
from stream_gru.errors import DataError

EMPTY = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
# Epoch numbers, told apart by their size: seconds up to the year 5138, then ms, us and ns from March 1973 on.
_UNITS = ((1e11, 1e3), (1e14, 1.0), (1e17, 1e-3), (np.inf, 1e-6))  # below which size, factor to ms: s, ms, us, ns
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(slots=True)
class History:
    """N readings in the order of the file."""

    series: list[str]  # N names
    timestamp: Ints  # (N,) epoch ms
    value: Floats  # (N, F), NaN = missing
    covariates: Floats = field(default_factory=lambda: np.empty((0, 0)))  # (N, C), NaN = unknown

    def __post_init__(self) -> None:
        if not self.covariates.size:
            self.covariates = np.empty((len(self.timestamp), 0))

    def __len__(self) -> int:
        return len(self.timestamp)


def read(
    file: Path, time: str, values: Sequence[str], key: str | None = None, covariates: Sequence[str] = ()
) -> History:
    """Read `file`. Without a `key` column the whole file is one series, named after the file.

    Times are ISO 8601 (UTC unless they say otherwise), dates, or epoch numbers in s, ms, us or ns. An empty cell is a
    missing value. Raises `DataError` naming file, column and row for anything else.
    """
    table = _table(file)
    wanted = [time, *values, *([key] if key else []), *covariates]
    if missing := [name for name in wanted if name not in table.columns]:
        raise DataError(f"{file} has no column {', '.join(missing)}; it has {', '.join(table.columns)}")
    if key is None:
        series = [file.stem] * len(table)
    else:
        _require(file, key, table[key].is_null().to_numpy(), "names no series")
        series = table[key].cast(pl.String).to_list()
    numbers = np.stack([_numbers(file, table[name]) for name in (*values, *covariates)], axis=1)
    return History(series, _times(file, table[time]), *np.split(numbers, [len(values)], axis=1))


def _table(file: Path) -> pl.DataFrame:
    kind = file.suffix.lower()
    if not file.is_file():
        raise DataError(f"there is no file {file}")
    try:
        if kind in (".parquet", ".pq"):
            return pl.read_parquet(file)
        if kind == ".csv":
            with file.open("rb") as text:
                header = text.readline()
            separator = max((b",", b";", b"\t"), key=header.count).decode()
            return pl.read_csv(file, separator=separator, infer_schema_length=None, null_values=EMPTY)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise DataError(f"{file} can't be read: {reason}") from None
    raise DataError(f"{file}: only .csv and .parquet files can be read")


def _numbers(file: Path, column: pl.Series) -> Floats:
    numbers = column.cast(pl.Float64, strict=False)
    wrong = (numbers.is_null() & column.is_not_null()) | numbers.is_infinite().fill_null(False)
    _require(file, column.name, wrong.to_numpy(), "is no number", column)
    out: Floats = numbers.fill_null(np.nan).to_numpy()
    return out


def _times(file: Path, column: pl.Series) -> Ints:
    _require(file, column.name, column.is_null().to_numpy(), "is empty")
    if column.dtype.is_temporal() and column.dtype not in (pl.Duration, pl.Time):
        milliseconds: Ints = column.cast(pl.Datetime("ms")).to_physical().to_numpy()
        return milliseconds
    if column.dtype.is_numeric():
        return _epochs(file, column)
    if column.dtype == pl.String:
        parsed = [_parse(text) for text in column.to_list()]
        _require(file, column.name, np.array([t is None for t in parsed], dtype=bool), "is no ISO 8601 time", column)
        return np.array(parsed, dtype=np.int64)
    raise DataError(f"{file}: column {column.name} holds {column.dtype}, not times")


def _epochs(file: Path, column: pl.Series) -> Ints:
    numbers = column.cast(pl.Float64).to_numpy()
    _require(file, column.name, ~np.isfinite(numbers), "is no time", column)
    largest = float(np.max(np.abs(numbers), initial=0.0))
    per_ms = next(factor for limit, factor in _UNITS if largest < limit)
    if per_ms < 1 and column.dtype.is_integer():  # us and ns have more digits than a double
        whole: Ints = column.cast(pl.Int64).to_numpy() // round(1 / per_ms)
        return whole
    return np.floor(numbers * per_ms + 1e-6).astype(np.int64)


def _parse(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


def _require(file: Path, column: str, wrong: Any, what: str, content: pl.Series | None = None) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        shown = "" if content is None else f" ({content[int(rows[0])]!r})"
        more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise DataError(f"{file}: {column} {what} in row {int(rows[0]) + 1}{shown}{more}")
