"""Windows: stretches of series side by side, cut from series that lie end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_gru.columns import Bools, Floats, Ints

_LEAST_READINGS = 2  # readings of a window: one alone has nothing to learn


@dataclass(frozen=True, slots=True)
class Windows:
    """n stretches of L readings; a shorter one repeats its last reading up to L."""

    timestamp: Ints  # (n, L) epoch ms
    value: Floats  # (n, L), none missing: what was is left out or filled in
    length: Ints  # (n,) how many of them are no padding
    known: Bools  # (n, L) neither padding nor filled in: what may be learned
    feature: Ints  # (n,) the number of the column that the values come from
    covariates: Floats  # (n, L, C), NaN: unknown

    def take(self, rows: Ints) -> Windows:
        """Some of the windows, as wide as the longest of them."""
        width = int(self.length[rows].max(initial=0))
        return Windows(
            self.timestamp[rows, :width],
            self.value[rows, :width],
            self.length[rows],
            self.known[rows, :width],
            self.feature[rows],
            self.covariates[rows, :width],
        )


def join(parts: Sequence[Windows]) -> Windows:
    """All windows of several batches, as wide as the widest."""
    width = max(part.value.shape[1] for part in parts)
    last = [np.minimum(np.arange(width), part.value.shape[1] - 1) for part in parts]
    inside = [np.arange(width) < part.length[:, None] for part in parts]
    return Windows(
        np.concatenate([part.timestamp[:, index] for part, index in zip(parts, last, strict=True)]),
        np.concatenate([part.value[:, index] for part, index in zip(parts, last, strict=True)]),
        np.concatenate([part.length for part in parts]),
        np.concatenate([part.known[:, index] & real for part, index, real in zip(parts, last, inside, strict=True)]),
        np.concatenate([part.feature for part in parts]),
        np.concatenate([part.covariates[:, index] for part, index in zip(parts, last, strict=True)]),
    )


@dataclass(frozen=True, slots=True)
class Filled:
    """One series of T readings without a missing value: the first and the last one are known."""

    timestamp: Ints  # (T,) epoch ms
    value: Floats  # (T,)
    known: Bools  # (T,) not filled in
    covariates: Floats  # (T, C)
    feature: int

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True, slots=True)
class Spans:
    """Where n windows lie on a tape."""

    series: Ints  # (n,)
    start: Ints  # (n,) on the tape
    length: Ints  # (n,)

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: Ints) -> Spans:
        """Some of them."""
        return Spans(self.series[rows], self.start[rows], self.length[rows])


class Tape:
    """Series end to end, so that windows of any of them are one look-up."""

    def __init__(self, series: Sequence[Filled]) -> None:
        self._timestamp = np.concatenate([one.timestamp for one in series])
        self._value = np.concatenate([one.value for one in series])
        self._known = np.concatenate([one.known for one in series])
        self._covariates = np.concatenate([one.covariates for one in series])
        self._feature = np.array([one.feature for one in series], np.int64)
        self.sizes = np.array([len(one) for one in series], np.int64)
        self._begin = np.cumsum(self.sizes) - self.sizes
        known = np.flatnonzero(self._known)
        # The row of a new series begins with a reading, so a window does too; the last reading of a series is known.
        self._onset = known[np.searchsorted(known, np.arange(len(self._known)))]

    def __len__(self) -> int:
        """Readings that are known."""
        return int(np.count_nonzero(self._known))

    def sliding(self, length: int, stride: int) -> Spans:
        """Windows of `length` readings, one every `stride` readings and one that ends with the series.

        A series that is shorter is one window. Readings that were filled in at its beginning are left off a window.
        """
        parts = []
        for series, (begin, size) in enumerate(zip(self._begin, self.sizes, strict=True)):
            last = max(int(size) - length, 0)
            start = np.unique(np.append(np.arange(0, last + 1, stride), last)) + begin
            stop = np.minimum(start + length, begin + size)
            onset = self._onset[start]
            parts.append(Spans(np.full(len(start), series), onset, stop - onset))
        spans = Spans(
            np.concatenate([part.series for part in parts]),
            np.concatenate([part.start for part in parts]),
            np.concatenate([part.length for part in parts]),
        )
        return spans.take(np.flatnonzero(spans.length >= _LEAST_READINGS))

    def anywhere(self, n: int, length: int, rng: np.random.Generator) -> Spans:
        """`n` windows of at most `length` readings that start anywhere. A series counts by its readings."""
        series = rng.choice(len(self.sizes), n, p=self.sizes / self.sizes.sum())
        begin, size = self._begin[series], self.sizes[series]
        start = self._onset[begin + rng.integers(0, np.maximum(size - length, 0) + 1)]
        return Spans(series, start, np.minimum(length, begin + size - start))

    def cut(self, spans: Spans) -> Windows:
        """The windows of these spans, as wide as the longest."""
        position = np.arange(int(spans.length.max(initial=0)))
        inside = position < spans.length[:, None]
        index = spans.start[:, None] + np.minimum(position, spans.length[:, None] - 1)
        return Windows(
            self._timestamp[index],
            self._value[index],
            spans.length,
            self._known[index] & inside,
            self._feature[spans.series],
            self._covariates[index],
        )
