"""Intervals that cover what they say: online quantile tracking (Gibbs and Candes 2021; Angelopoulos et al. 2023).

Each quantile of a series is drawn away from the median, or towards it, by a factor whose logarithm moves a little with
every reading: by as much as balances where the readings lie below the quantile as often as its level says.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RATE = 0.05
_BEGIN = 64  # readings, before which the factors stay 1
_MOST = 2.0  # logarithm of a factor


def track(factors: Tensor, made: Tensor, dx: Tensor, rate: Tensor, levels: Tensor) -> Tensor:
    """Log factors (Q, N) after a reading dx (1, N), of which the quantiles `made` (Q, N) had been forecast.

    Their levels are (Q, 1); `rate` (1, N) is 1 / readings seen before.
    """
    below = ((dx < made).float() + (dx <= made).float()) * 0.5  # half of a tie lies below
    moved = (factors + _RATE * (levels - 0.5).sign() * (levels - below)).clamp(-_MOST, _MOST)
    return torch.where(rate * _BEGIN <= 1, moved, factors)


def spread(quantiles: Tensor, factors: Tensor, median: Tensor) -> Tensor:
    """Forecast quantiles (Q, N), rising, drawn away from the `median` (1, N), and rising again."""
    return torch.addcmul(median, quantiles - median, factors.exp()).sort(0).values
