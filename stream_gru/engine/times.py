"""Times of readings, however a notebook holds them, as epoch ms."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import narwhals as nw
import numpy as np

from stream_gru.columns import Bools, Ints
from stream_gru.errors import DataError

_WHAT = "give epoch milliseconds as integers, or datetimes"
_EARLIEST, _LATEST = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999
_THIS_CENTURY_S = 946_684_800, 4_102_444_800


def epoch_ms(timestamp: Iterable[Any]) -> Ints:
    """N times as epoch ms: integers, whole floats, or datetimes of numpy, pandas, polars or Python; a naive one is UTC.

    Raises `DataError` for what can't be epoch ms, with what to do.
    """
    column = nw.from_native(timestamp, series_only=True, pass_through=True)
    if isinstance(column, nw.Series):
        _refuse(column.is_null().to_numpy(), "the time is missing")
        times = (column.dt.timestamp("ms") if isinstance(column.dtype, nw.Datetime) else column).to_numpy()
    else:
        times = np.asarray(timestamp if isinstance(timestamp, np.ndarray) else list(timestamp))
    if times.dtype == object:
        times = np.array([_number(time) for time in times.tolist()])
    if times.dtype.kind == "M":
        _refuse(np.isnat(times), "the time is missing")
        times = times.astype("datetime64[ms]").astype(np.int64)
    elif times.dtype.kind == "f":
        _refuse(np.isnan(times), "the time is missing")
        _refuse(times != np.rint(times), "the time has a fraction, so it is not in milliseconds")
    elif times.dtype.kind not in "iu" and len(times):
        raise DataError(f"reading 0: {times[0]!r} is no time; {_WHAT}")
    _refuse((times < _EARLIEST) | (times > _LATEST), "the time in ms is not between the years 1 and 9999")
    return times.astype(np.int64)


def refuse_seconds(timestamp: Ints, begins: Bools) -> None:
    """Raises `DataError` where a series `begins` (N,) in January or February 1970 and, were its `timestamp` (N,) in
    seconds, in this century."""
    earliest, latest = _THIS_CENTURY_S
    _refuse(begins & (timestamp >= earliest) & (timestamp <= latest), "the time looks like epoch seconds")


def _refuse(wrong: Bools, what: str) -> None:
    if wrong.any():
        raise DataError(f"reading {int(wrong.argmax())}: {what}; {_WHAT}")


def _number(time: Any) -> Any:
    """A datetime as epoch ms."""
    if not isinstance(time, datetime):
        return time
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
