"""What a fit learns from: batches of windows, made up or cut from history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from stream_gru.batch import Floats, Ints
from stream_gru.errors import DataError
from stream_gru.tools import history
from stream_gru.training import synthetic


@dataclass(frozen=True, slots=True)
class Windows:
    """n stretches of L readings, without missing ones; a shorter one repeats its last reading up to L."""

    timestamp: Ints  # (n, L) epoch ms
    value: Floats  # (n, L)
    length: Ints  # (n,) how many of them are real


class Source(Protocol):
    """Where windows come from."""

    def draw(self, n: int, length: int, rng: np.random.Generator) -> Windows:
        """`n` windows of at most `length` readings, shorter if there are no longer ones."""
        ...


class Synthetic:
    """New made-up series, each time."""

    def draw(self, n: int, length: int, rng: np.random.Generator) -> Windows:
        """`n` series of `length` readings."""
        return Windows(*synthetic.generate(n, length, rng), np.full(n, length))


class History:
    """Series that were recorded. A series counts by its number of readings."""

    def __init__(self, series: Sequence[tuple[Ints, Floats]]) -> None:
        """`series` are pairs of epoch ms and values, in order of time, without missing values."""
        if not series:
            raise DataError(f"there is no series of at least {MIN_READINGS} readings to learn from")
        self.series = list(series)
        sizes = np.array([len(value) for _, value in self.series], float)
        self._share = sizes / sizes.sum()
        self._longest = int(sizes.max())

    def __len__(self) -> int:
        return sum(len(value) for _, value in self.series)

    def draw(self, n: int, length: int, rng: np.random.Generator) -> Windows:
        """`n` windows that start anywhere."""
        length = min(length, self._longest)
        windows = Windows(np.empty((n, length), np.int64), np.empty((n, length)), np.empty(n, np.int64))
        for row, pick in enumerate(rng.choice(len(self.series), n, p=self._share)):
            timestamp, value = self.series[pick]
            start = int(rng.integers(0, max(len(value) - length, 0) + 1))
            part = slice(start, start + length)
            real = len(value[part])
            windows.length[row] = real
            for column, source in ((windows.timestamp, timestamp), (windows.value, value)):
                column[row, :real] = source[part]
                column[row, real:] = column[row, real - 1]
        return windows

    def split(self, share: float) -> tuple[History, History]:
        """What comes first in time, and the last `share` of each series."""
        cuts = [(timestamp, value, round(len(value) * (1 - share))) for timestamp, value in self.series]
        return (
            History([(timestamp[:cut], value[:cut]) for timestamp, value, cut in cuts]),
            History([(timestamp[cut:], value[cut:]) for timestamp, value, cut in cuts]),
        )


MIN_READINGS = 100


def read(files: Sequence[Path], time: str, values: Sequence[str], key: str | None) -> History:
    """The series of history files; each value column of each key is one. Raises `DataError` for what can't be read."""
    series = []
    for file in files:
        table = history.read(file, time, values, key)
        _, member = np.unique(np.array(table.series), return_inverse=True)
        for index in range(int(member.max(initial=-1)) + 1):
            mine = np.flatnonzero(member == index)
            mine = mine[np.argsort(table.timestamp[mine], kind="stable")]
            for column in table.value[mine].T:
                real = np.isfinite(column)
                if real.sum() >= MIN_READINGS:
                    series.append((table.timestamp[mine][real], column[real]))
    return History(series)
