"""Intervals that cover what they say: online quantile tracking (Gibbs and Candes 2021; Angelopoulos et al. 2023).

Each quantile of a series has an offset, in widths of the 90% interval, that moves a little with every reading: up where
the reading lies above it, down where below, in the proportion that balances at its level.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RATE = 0.01
_BEGIN = 64  # readings, before which the offsets stay 0


def track(offsets: Tensor, made: Tensor, dx: Tensor, rate: Tensor, levels: Tensor) -> Tensor:
    """Offsets (Q, N) after a reading dx (1, N), of which the quantiles `made` (Q, N) of `levels` (Q, 1) were forecast.

    `rate` (1, N) is 1 / readings seen before.
    """
    below = ((dx < made).float() + (dx <= made).float()) * 0.5  # half of a tie lies below
    return torch.where(rate * _BEGIN <= 1, offsets + _RATE * (levels - below), offsets)


def shifted(quantiles: Tensor, offsets: Tensor, width: Tensor) -> Tensor:
    """Forecast quantiles (..., Q, N), rising, moved by the offsets (Q, N) in `width` (..., 1, N), and rising again."""
    return torch.addcmul(quantiles, offsets, width).sort(-2).values
