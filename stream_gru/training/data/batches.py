"""Which windows are learned from together: those of like length, so that little of a batch is padding."""

from __future__ import annotations

import numpy as np

from stream_gru.columns import Ints
from stream_gru.errors import DataError


def group(length: Ints, rng: np.random.Generator, batch: int, tokens: int | None = None) -> list[Ints]:
    """Split windows of these lengths (n,) into batches, in random order; each is the indices of its windows.

    A batch has `batch` windows, or with `tokens` as many as fit in so many readings, padding included. Windows of the
    same length come together at random. Raises `DataError` for a window that is longer than `tokens`.
    """
    order = rng.permutation(len(length))
    order = order[np.argsort(length[order], kind="stable")]
    if tokens is None:
        groups = np.split(order, np.arange(batch, len(order), batch)) if len(order) else []
    else:
        groups = _budgeted(order, length[order], tokens)
    return [groups[i] for i in rng.permutation(len(groups))]


def _budgeted(order: Ints, length: Ints, tokens: int) -> list[Ints]:
    if len(length) and length[-1] > tokens:
        raise DataError(
            f"data.tokens is {tokens}, less than a window of {length[-1]} readings; raise it to that at least"
        )
    groups, i = [], 0
    while i < len(order):
        most = length[i : i + tokens // int(length[i])]
        size = int(np.searchsorted(np.arange(1, len(most) + 1) * most, tokens, side="right"))  # the last is the longest
        groups.append(order[i : i + size])
        i += size
    return groups
