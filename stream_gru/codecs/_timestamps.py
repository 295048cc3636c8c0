"""Timestamps of payloads <-> epoch milliseconds.

What is finer than a millisecond is cut off towards the past. Seconds are read to the microsecond, which is as fine as a
double is near today (up to the year 2242), so that a decimal fraction gives exactly the millisecond that it spells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import numpy as np

from stream_gru.columns import Floats, Ints

FIRST = -62_135_596_800_000  # 0001-01-01T00:00:00Z
LAST = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
INVALID = int(np.iinfo(np.int64).min)  # stands for what is no time; no epoch ms of these years

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

# A double holds every epoch millisecond of these years exactly, but not every microsecond.
KINDS: dict[str, Any] = {"s": float, "ms": float, "us": _Int64, "ns": _Int64, "iso": str}


def to_ms(column: Sequence[Any], unit: str) -> Ints:
    """Values of the type ``KINDS[unit]`` as epoch ms; `INVALID` where it is no time of the years 1 to 9999."""
    milliseconds = _READERS[unit](column)
    inside = (milliseconds >= FIRST) & (milliseconds <= LAST)
    result = np.where(inside, milliseconds, 0).astype(np.int64)
    result[~inside] = INVALID
    return result


def from_ms(timestamp: Ints, unit: str) -> list[Any]:
    """The opposite of `to_ms`."""
    milliseconds: list[int] = timestamp.tolist()
    if unit == "iso":
        return [(_EPOCH + t * _MILLISECOND).isoformat(timespec="milliseconds") for t in milliseconds]
    if unit == "s":
        return [t / 1000 for t in milliseconds]
    scale = {"ms": 1, "us": 1_000, "ns": 1_000_000}[unit]
    return [t * scale for t in milliseconds]


def _seconds(column: Sequence[float]) -> Floats:
    seconds = np.clip(np.fromiter(column, np.float64, len(column)), -LAST, LAST)  # what is beyond would overflow below
    whole = np.floor(seconds)
    microseconds = np.rint((seconds - whole) * 1e6)
    return whole * 1000 + np.floor(microseconds / 1000)


def _milliseconds(column: Sequence[float]) -> Floats:
    return np.floor(np.fromiter(column, np.float64, len(column)))


def _microseconds(column: Sequence[int]) -> Ints:
    return np.fromiter(column, np.int64, len(column)) // 1_000


def _nanoseconds(column: Sequence[int]) -> Ints:
    return np.fromiter(column, np.int64, len(column)) // 1_000_000


def _texts(column: Sequence[str]) -> Ints:
    return np.fromiter(map(_text, column), np.int64, len(column))


def _text(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return INVALID
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


_READERS: dict[str, Callable[[Sequence[Any]], Ints | Floats]] = {
    "s": _seconds,
    "ms": _milliseconds,
    "us": _microseconds,
    "ns": _nanoseconds,
    "iso": _texts,
}
