"""Times of readings, however a notebook holds them, as epoch ms."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import narwhals as nw
import numpy as np
import numpy.typing as npt

from stream_gru.columns import Bools, Ints
from stream_gru.engine import inputs
from stream_gru.errors import DataError

_WHAT = "give epoch milliseconds as integers, or datetimes"
_EARLIEST, _LATEST = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999
_THIS_CENTURY_S = 946_684_800, 4_102_444_800


def epoch_ms(timestamp: Iterable[Any]) -> Ints:
    """N times as epoch ms: integers, whole floats, or datetimes of numpy, pandas, polars or Python; a naive one is UTC.

    Raises `DataError` for what can't be epoch ms, with what to do.
    """
    if isinstance(timestamp, str | bytes) or not isinstance(timestamp, Iterable):
        raise DataError(f"{timestamp!r} are no times of readings; {_WHAT}")
    with inputs.explained(f"the times can't be read; {_WHAT}"):
        column = nw.from_native(timestamp, series_only=True, pass_through=True)
        if isinstance(column, nw.Series):
            _refuse(column.is_null().to_numpy(), "the time is missing")
            dated = isinstance(column.dtype, nw.Datetime | nw.Date)
            times = (column.dt.timestamp("ms") if dated else column).to_numpy()
        else:
            times = np.asarray(timestamp if isinstance(timestamp, np.ndarray) else list(timestamp))
    if times.ndim != 1:
        raise DataError(f"the times of the readings have the shape {times.shape}; {_WHAT}, one for each reading")
    if times.dtype == object:
        times = _numbers(times.tolist())
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


def _numbers(times: list[Any]) -> npt.NDArray[Any]:
    """Datetimes and dates, at 0:00 UTC, as epoch ms; the rest as it is."""
    _refuse(np.array([inputs.missing(time) for time in times], np.bool_), "the time is missing")
    with inputs.explained(f"the times can't be read; {_WHAT}"):
        return np.array([_of_date(time) for time in times])


def _of_date(time: Any) -> Any:
    if isinstance(time, date) and not isinstance(time, datetime):
        time = datetime.combine(time, datetime.min.time())
    if not isinstance(time, datetime):
        return time
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
