"""The last `window` rows that a block saw of each series, the newest included, and how to look back at them.

They lie in the state as [count | oldest, ..., newest], flat: 1 + window * width floats. The count, which ends at the
window, tells the rows that are there from the zeros of a series that began not long ago.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_STRETCH_QUERIES = 24  # queries at once: measured best on a CPU, whatever the window


def size(window: int, width: int) -> int:
    """How many floats of a series' state the ring takes."""
    return 1 + window * width


def push(state: Tensor, x: Tensor) -> Tensor:
    """The newest row in, the oldest out: state (n, 1 + W D), x (n, D) -> state (n, 1 + W D)."""
    width = x.shape[1]
    window = (state.shape[1] - 1) // width
    return torch.cat([(state[:, :1] + 1).clamp(max=window), state[:, 1 + width :], x], 1)


def extend(state: Tensor, x: Tensor) -> Tensor:
    """As `push` of one row after another: state (n, 1 + W D), x (n, T, D) -> state (n, 1 + W D)."""
    steps, width = x.shape[1:]
    window = (state.shape[1] - 1) // width
    past = torch.cat([state[:, 1 + width * min(steps, window) :], x[:, -window:].flatten(1)], 1)
    return torch.cat([(state[:, :1] + steps).clamp(max=window), past], 1)


def window(state: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """What a step sees: state (n, 1 + W D) after its `push` -> rows (n, W, D), which of them are there (n, W)."""
    rows = state[:, 1:].view(len(state), (state.shape[1] - 1) // width, width)
    return rows, _there(state[:, :1], rows.shape[1])


def windows(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """What T steps see: state (n, 1 + W D) before them, x (n, T, D) -> rows (n, W - 1 + T, D), which are there.

    Step t sees rows[:, t : t + W].
    """
    n, steps, width = x.shape
    past = state[:, 1 + width :].view(n, (state.shape[1] - 1) // width - 1, width)
    rows = torch.cat([past, x], 1)
    return rows, _there(state[:, :1] + steps, rows.shape[1])


def weights(queries: Tensor, rows: Tensor, there: Tensor, bias: Tensor) -> Tensor:
    """How much each of C queries in a row gives to what its window shows; what is not there gets nothing.

    queries (n, C, K, D), rows (n, W - 1 + C, D), there (n, W - 1 + C), bias (K, W) by place in the window, the oldest
    first -> (n, C, K, W - 1 + C), which sums to 1.
    """
    times = queries.shape[1]
    band = nn.functional.pad(bias, (times - 1, times - 1), value=-torch.inf).unfold(1, rows.shape[1], 1).flip(1)
    scores = (queries.flatten(1, 2) @ rows.transpose(1, 2)).view(*queries.shape[:3], rows.shape[1])
    scores = scores + band.transpose(0, 1)
    return scores.masked_fill(~there[:, None, None], -torch.inf).softmax(-1)


def look_back(queries: Tensor, rows: Tensor, there: Tensor, bias: Tensor) -> Tensor:
    """The rows' mean by `weights` for each of T queries: queries (n, T, K, D), bias (K, W) -> (n, T, K, D).

    Stretch by stretch, so that the time grows with T and not with its square.
    """
    window, means = bias.shape[1], []
    for start in range(0, queries.shape[1], _STRETCH_QUERIES):
        part = queries[:, start : start + _STRETCH_QUERIES]
        seen = slice(start, start + window - 1 + part.shape[1])
        shares = weights(part, rows[:, seen], there[:, seen], bias)
        means.append((shares.flatten(1, 2) @ rows[:, seen]).view_as(part))
    return means[0] if len(means) == 1 else torch.cat(means, 1)


def _there(count: Tensor, size: int) -> Tensor:
    """Which of the last `size` rows were seen: count (n, 1) -> (n, size)."""
    return torch.arange(size, device=count.device) >= size - count
