"""The state row: everything that is remembered of one series, as the bytes that the store keeps.

One contiguous little-endian record of three parts. The head is what the host needs to admit a reading: ``int64 offset``
of the last record applied (-1: none), ``int64 timestamp`` of it (epoch ms; `NEVER`: none), ``float64 last[F]``, the
last value of each feature (NaN: none), ``int64 since[F]``, its time, ``int64 seen[F]``, how many there were, ``float64
base[F]``, the first one, `ALARM`, what was told of the series (see `alert`), ``float64 interval``, the usual ms between
two readings (0: not known), ``int64 filled[F]``, steps in a row that were filled in since the last value, ``int64
made``, forecasts given to the past. The past is a ring of the last `PAST` one-step forecasts, against which readings
are held that come late. The body, ``float32[F, W]``, holds the named fields of each feature, which only the device
works on.

Every level in the body is kept relative to `last`: a counter at 1e12 keeps its precision in float32 however far it
runs. What is too long to be shifted with each reading, the profiles, is kept relative to `base`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

NONE = -1  # the offset of a row that no record was applied to
NEVER = int(np.iinfo(np.int64).min)  # its timestamp
FORMAT = 3
PAST = 6  # forecasts kept for readings that come late
ALARM = np.dtype(
    [
        ("open", "<f8"),  # 1 while the series is anomalous
        ("since", "<f8"),  # readings since something was told, and that one, 0: there was nothing
        ("told", "<f8"),  # the surprise that was
        ("habit", "<f8"),  # decaying count of what was told
    ]
)

RowBytes = npt.NDArray[np.uint8]  # (n, row_bytes)
Structured = npt.NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """Where each field of a row lies. `fields` are the names and widths of the body's, in floats, in order."""

    features: int  # F
    fields: Mapping[str, int]
    width: int = field(init=False)  # W, floats in the body of one feature, even
    head: np.dtype[Any] = field(init=False)
    past: np.dtype[Any] = field(init=False)  # one forecast: the time it was made, the median, how far the bounds lie
    dtype: np.dtype[Any] = field(init=False)
    row_bytes: int = field(init=False)
    version: str = field(init=False)  # changes with every change of the bytes' meaning

    def __post_init__(self) -> None:
        widths = dict(self.fields)
        if sum(widths.values()) % 2:
            widths["padding"] = 1  # a row is a whole number of 8 bytes
        each = (self.features,)
        head: list[Any] = [("offset", "<i8"), ("timestamp", "<i8"), ("last", "<f8", each)]
        head += [("since", "<i8", each), ("seen", "<i8", each), ("base", "<f8", each), ("alarm", ALARM)]
        head += [("interval", "<f8"), ("filled", "<i8", each), ("made", "<i8")]
        past = np.dtype([("time", "<i8"), ("yhat", "<f8", each), ("below", "<f4", each), ("above", "<f4", each)])
        body = np.dtype([(name, "<f4", (n,)) for name, n in widths.items()])
        dtype = np.dtype([*head, ("past", past, (PAST,)), ("body", body, (self.features,))])
        meaning = f"{FORMAT} {self.features} {widths}"
        derived = {
            "fields": widths,
            "width": sum(widths.values()),
            "head": np.dtype(head),
            "past": past,
            "dtype": dtype,
            "row_bytes": dtype.itemsize,
            "version": f"{FORMAT}-{hashlib.sha256(meaning.encode()).hexdigest()[:12]}",
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def fresh(self, **start: npt.ArrayLike) -> Structured:
        """The row of a series that no reading was applied to, (1,). `start` gives fields of the body that aren't 0."""
        row = np.zeros(1, self.dtype)
        row["offset"], row["timestamp"], row["last"], row["base"] = NONE, NEVER, np.nan, np.nan
        row["past"]["time"] = NEVER
        for name, value in start.items():
            row["body"][name] = value
        return row

    def parse(self, rows: Sequence[bytes] | RowBytes) -> Structured:
        """Rows as bytes -> a structured array (n,), for tools and tests."""
        return np.frombuffer(rows.tobytes() if isinstance(rows, np.ndarray) else b"".join(rows), self.dtype)


def words(rows: Structured) -> npt.NDArray[np.int64]:
    """A view of structured rows (...,) as 8-byte words, (n, words of one): numpy gathers and scatters those 10 times as
    fast."""
    return rows.view(np.int64).reshape(rows.size, rows.dtype.itemsize // 8)


def as_bytes(rows: RowBytes) -> list[bytes]:
    """(n, row_bytes) -> n bytes objects."""
    if not len(rows):
        return []
    voids: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel().tolist()
    return voids
