"""Columns: a batch of readings on its way in, a batch of forecasts on its way out.

Everything between decoding and encoding works on these arrays; there is no Python object per reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Self, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS

_Note = TypeVar("_Note")


class Level(IntEnum):
    """What an output says about its reading. `COVERED` never leaves the process."""

    WARMUP = 0  # the series is too young to be judged
    NORMAL = 1
    ANOMALY = 2
    MISSING = 3  # the value was null: nothing to score
    LATE = 4  # older than the last reading of its series: held against the forecast of its time, state unchanged
    COVERED = 5  # a replayed record that the row already reflects (rule R12): nothing is published


LEVEL_NAMES = tuple(level.name.lower() for level in Level)
"""What an output calls each `Level`."""


@dataclass(slots=True)
class Readings:
    """N decoded readings, in the order of their offsets within each partition.

    `slot` is the row of the arena that belongs to the series. A NaN in `value` is a missing value.
    """

    slot: Ints  # (N,)
    offset: Ints  # (N,) Kafka offset; in a backtest the row number
    timestamp: Ints  # (N,) epoch ms
    value: Floats  # (N, F + C): F features, then C covariates if the model knows any

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, index: npt.NDArray[Any] | slice) -> Self:
        """The readings at `index` (integers, a mask or a slice), in that order."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(slots=True)
class Forecasts:
    """What the engine says of N readings, in their order. K steps ahead, F features.

    Intervals are central 90%. Values that do not exist (no forecast yet, a missing reading) are NaN.
    """

    y: Floats  # (N, F) the reading itself
    yhat: Floats  # (N, F) the one-step forecast that had been made for this reading
    lower: Floats  # (N, F)
    upper: Floats  # (N, F)
    spread: Floats  # (N, F) how far the members of an ensemble were apart on it, a standard deviation
    ahead: Floats  # (N, K, 3, F) from here: (yhat, lower, upper) at each of the K steps, the next one first
    anomaly_score: Floats  # (N,) above 1 anomalous; how the series is now
    anomaly_grade: Floats  # (N,) 0-1
    is_anomaly: Bools  # (N,)
    alert_score: Floats  # (N,) above 1 exactly where alert
    alert: Bools  # (N,)
    closes: Bools  # (N,) the first reading of a series that is not anomalous after anomalous ones
    relevant_attribution: Floats  # (N, F) where is_anomaly: the features' shares in the score, 1 together; else NaN
    expected_values: Floats  # (N, F) where is_anomaly: what was expected of the reading a horizon before; else NaN
    level: npt.NDArray[np.int8]  # (N,) a Level
    quantiles: Floats  # (N, Q, F) yhat, lower, upper and whatever other levels the model has, rising
    imputed: Ints  # (N,) steps that were filled in with forecasts: readings missed before this one, or its null value

    def __len__(self) -> int:
        return len(self.level)

    def take(self, index: npt.NDArray[Any] | slice) -> Self:
        """The forecasts at `index` (integers, a mask or a slice), in that order."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def join(cls, parts: Sequence[tuple[Ints, Self]], n: int) -> Self:
        """One table of `n` rows from at least one part of it: the places of its rows, as `waves` gives them, and those.

        The places of all parts together are a permutation of ``arange(n)``.
        """
        columns = []
        for field in fields(cls):
            first = getattr(parts[0][1], field.name)
            column = np.empty((n, *first.shape[1:]), first.dtype)
            for places, part in parts:
                column[places] = getattr(part, field.name)
            columns.append(column)
        return cls(*columns)


def waves(slot: Ints) -> Iterator[Ints]:
    """Split rows by occurrence: each slot at most once a wave, first occurrences first, order kept.

    Yields index arrays that together are a permutation of ``arange(len(slot))``.
    """
    n = len(slot)
    order = np.argsort(slot, kind="stable")
    ordered = slot[order]
    begins = np.ones(n, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    first = np.flatnonzero(begins)
    if len(first) == n:
        if n:
            yield np.arange(n)
        return
    occurrence = np.arange(n) - np.repeat(first, np.diff(np.r_[first, n]))
    by_wave = np.argsort(occurrence, kind="stable")
    for index in np.split(order[by_wave], np.flatnonzero(np.diff(occurrence[by_wave])) + 1):
        yield np.sort(index)


def notes(of: type, kind: type[_Note]) -> dict[str, _Note]:
    """The notes of one `kind` in the annotations of a class, ``Annotated[type, note]``, by field and in order.

    So a class with typed fields is at the same time the one table of what there is to know of each.
    """
    hints = get_type_hints(of, include_extras=True)
    return {
        name: note
        for name, hint in hints.items()
        for note in getattr(hint, "__metadata__", ())
        if isinstance(note, kind)
    }
