"""Intervals that cover what they say: online quantile tracking (Gibbs and Candes 2021; Angelopoulos et al. 2023).

The distance of each forecast quantile to the median is multiplied by a factor of the series' own. Its logarithm moves a
little with every reading, outwards or inwards, so that in the long run as many readings lie below the quantile as its
level says.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEP = 0.05  # how far the logarithm of a factor moves at a reading, at most
_FIRST_READINGS = 64  # in which the factors stay 1: coverage says nothing yet
_LOG_FACTOR_MOST = 2.0  # so that an interval is drawn out by e squared, 7.4, at most


def track(factors: Tensor, made: Tensor, dx: Tensor, rate: Tensor, levels: Tensor) -> Tensor:
    """Log factors (Q, N) after a reading dx (1, N), of which the quantiles `made` (Q, N) had been forecast.

    Their levels are (Q, 1); `rate` (1, N) is 1 / readings seen before.
    """
    below = ((dx < made).float() + (dx <= made).float()) * 0.5  # half of a tie lies below
    moved = (factors + _STEP * (levels - 0.5).sign() * (levels - below)).clamp(-_LOG_FACTOR_MOST, _LOG_FACTOR_MOST)
    return torch.where(rate * _FIRST_READINGS <= 1, moved, factors)


def spread(quantiles: Tensor, factors: Tensor, median: Tensor) -> Tensor:
    """Forecast quantiles (Q, N), rising, drawn away from the `median` (1, N), and rising again."""
    return torch.addcmul(median, quantiles - median, factors.exp()).sort(0).values
