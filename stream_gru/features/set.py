"""What every set of features is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from stream_gru.features.observation import Observation


@dataclass(frozen=True)
class StatePart:
    """A note on a part of the state."""

    what: str
    floats: int = 1
    rates: tuple[float, ...] = ()  # of running averages, one a float; none: it is no average


class NetworkInput(NamedTuple):
    """What the network sees of one quantity."""

    name: str
    floats: int
    how: Literal["asinh", "log1p", "log", "plain"]  # log1p of the size, with its sign
    what: str


def rows_of(widths: Sequence[tuple[str, int]], name: str) -> slice:
    """Where the things named so stand, if each takes so many rows one below the other."""
    begin = 0
    for other, width in widths:
        if other == name:
            return slice(begin, begin + width)
        begin += width
    raise KeyError(name)


class FeatureView(NamedTuple):
    """What the forecaster is shown of N series after a reading. Moves are relative to the value read."""

    x: Tensor  # (D, N) inputs of the network
    moves: Tensor  # (S, A - 1, N) the anchors, cheap forecasts of each step, but the first, which is the value itself
    unit: Tensor  # (1, N) what quantiles are measured in


class RowTable(NamedTuple):
    """A long part of each row, of which a reading touches a few places. It is changed in place."""

    flat: Tensor  # all rows end to end
    at: Tensor  # (N,) where that of each series begins


def asinh(x: Tensor) -> Tensor:
    """Of float32, up to 1e18; torch's own kernel for CPUs is not vectorised."""
    size = x.abs().clamp(max=1e18)
    return torch.copysign((size + torch.addcmul(size.new_ones(()), size, size).sqrt()).log(), x)


class FeatureSet(nn.Module):
    """What the row knows of a series' past, and what the network sees of it. Nothing has weights or a gradient.

    The state is feature-major, (F, N). Levels in it are kept relative to the last value (see `row`), so that moving on
    by dx shifts them by -dx. Averages start as plain means: ``m += max(1 / n, rate) (target - m)``.
    """

    size: int  # F, floats in the body
    table: int  # floats of the table, which are NaN at first; 0: none
    inputs: int  # D
    anchors: int  # A
    errors: slice  # rows of x with the logarithms of the running errors of the anchors

    def advance(
        self, state: Tensor, observed: Observation, table: RowTable, steps: Tensor, *, fixed: bool = False
    ) -> tuple[Tensor, FeatureView]:
        """Take in a reading of each series: the new state, and the view from it at these steps ahead.

        `steps` are (S, 1), or (S, N) where each series has its own; the first is 1. `fixed`: one is the fixed scale
        of the observation, not the running one.
        """
        raise NotImplementedError
