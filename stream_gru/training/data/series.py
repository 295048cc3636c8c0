"""Recorded series, and the parts of them in order of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_gru.columns import Floats, Ints
from stream_gru.errors import DataError

MIN_READINGS = 100  # a shorter series teaches little


@dataclass(slots=True)
class Series:
    """T readings of one series, in order of time."""

    timestamp: Ints  # (T,) epoch ms
    value: Floats  # (T,), NaN = missing
    feature: int = 0  # the number of the column that the values come from
    covariates: Floats = field(default_factory=lambda: np.empty((0, 0)))  # (T, C), NaN = unknown
    name: str = ""

    def __post_init__(self) -> None:
        if not self.covariates.size:
            self.covariates = np.empty((len(self.value), 0))

    def __len__(self) -> int:
        return len(self.value)

    def part(self, start: int, stop: int | None = None) -> Series:
        """The readings `start` to `stop`."""
        rows = slice(start, stop)
        return Series(self.timestamp[rows], self.value[rows], self.feature, self.covariates[rows], self.name)


class SeriesCollection:
    """Series that were recorded, and the names of the covariates that came with them."""

    def __init__(self, series: Sequence[Series], covariates: Sequence[str] = ()) -> None:
        """Raises `DataError` when there is no series with a value."""
        self.series = [one for one in series if np.isfinite(one.value).any()]
        self.covariates = tuple(covariates)
        if not self.series:
            raise DataError(f"there is no series of at least {MIN_READINGS} readings to learn from")

    def __len__(self) -> int:
        """Readings, missing ones included."""
        return sum(map(len, self.series))

    def between(self, first: float, last: float) -> SeriesCollection:
        """From the share `first` of each series to the share `last`: ``between(0, 0.5)`` is the first half of each."""
        bounds = [(one, round(len(one) * first), round(len(one) * last)) for one in self.series]
        return SeriesCollection([one.part(a, b) for one, a, b in bounds], self.covariates)

    def split(self, share: float) -> tuple[SeriesCollection, SeriesCollection]:
        """What comes first in time, and the last `share` of each series."""
        return self.between(0, 1 - share), self.between(1 - share, 1)

    def recent(self, count: int) -> SeriesCollection:
        """The last `count` values of each series, and what is missing between them."""
        parts = [one.part(int(np.flatnonzero(np.isfinite(one.value))[-count:][0])) for one in self.series]
        return SeriesCollection(parts, self.covariates)


def columns(names: Sequence[str], timestamp: Ints, value: Floats, covariates: Floats, prefix: str = "") -> list[Series]:
    """Readings (N,), value (N, F), covariates (N, C) of any series in any order -> each column of each as one series.

    Series with fewer than `MIN_READINGS` values are left out.
    """
    different, member = np.unique(np.array(names, dtype=np.str_), return_inverse=True)
    order = np.lexsort((timestamp, member))  # stable: rows of the same time stay in their order
    parts = np.split(order, np.cumsum(np.bincount(member, minlength=len(different)))[:-1])
    series = []
    for name, rows in zip(different.tolist(), parts, strict=False):  # without any there is one empty part
        for feature, column in enumerate(value[rows].T):
            if np.isfinite(column).sum() >= MIN_READINGS:
                label = f"{prefix}{name}" if value.shape[1] == 1 else f"{prefix}{name}/{feature}"
                series.append(Series(timestamp[rows], column, feature, covariates[rows], label))
    return series
