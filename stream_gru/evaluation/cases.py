"""One labelled or unlabelled series of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from stream_gru.columns import Bools, Floats, Ints

Span = tuple[int, int]  # first and last row, both included


@dataclass(frozen=True, slots=True)
class SuiteCase:
    """T readings of F features in the order of the file. The engine is never given `windows`."""

    name: str
    timestamp: Ints  # (T,) epoch ms
    value: Floats  # (T, F), NaN = missing
    windows: tuple[Span, ...] = ()  # anomalous rows, in order
    warm: int = 0  # so many rows are fed first and not scored
    group: str = ""  # the data set, where a suite has several

    def __len__(self) -> int:
        return len(self.timestamp)

    @property
    def labels(self) -> Bools:
        """(T - warm,) which of the scored rows are anomalous."""
        marked = np.zeros(len(self), np.bool_)
        for first, last in self.windows:
            marked[first : last + 1] = True
        return marked[self.warm :]

    @property
    def days(self) -> float:
        """How long the scored rows last, by the usual time between two of them."""
        steps = np.diff(self.timestamp)
        return (len(self) - self.warm) * float(np.median(steps)) / 86_400_000 if len(steps) else 0.0

    def head(self, limit: int | None) -> SuiteCase:
        """A quick look: at most the last `limit` of the rows fed first, and the first `limit` of the scored ones."""
        if limit is None:
            return self
        begin, end = max(self.warm - limit, 0), min(self.warm + limit, len(self))
        inside = ((max(a, begin) - begin, min(b, end - 1) - begin) for a, b in self.windows)
        return replace(
            self,
            timestamp=self.timestamp[begin:end],
            value=self.value[begin:end],
            windows=tuple((a, b) for a, b in inside if a <= b),
            warm=self.warm - begin,
        )


def runs(marked: Bools, offset: int = 0) -> tuple[Span, ...]:
    """The stretches of true rows, `offset` added."""
    edges = np.flatnonzero(np.diff(np.r_[False, marked, False].astype(np.int8)))
    return tuple((int(a) + offset, int(b) - 1 + offset) for a, b in edges.reshape(-1, 2))


def halves(cases: Iterable[SuiteCase]) -> Ints:
    """0 and 1 in turns within each group: a fixed split of the cases, in their order by name, into A and B."""
    met: dict[str, int] = {}
    out = []
    for case in cases:
        out.append(met.get(case.group, 0) % 2)
        met[case.group] = met.get(case.group, 0) + 1
    return np.array(out, np.int64)
