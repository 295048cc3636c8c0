"""How good forecasts are at the start of a series and later on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stream_gru.models.forecaster import Forecaster
from stream_gru.training.objective import run
from stream_gru.training.prepare import Prepared

POSITIONS = (10, 25, 50, 100, 250, 1000)  # readings that the model has seen of a series
_WIDTH_SHARE = 0.25  # of a position: errors are averaged from there to a quarter farther


@torch.no_grad()
def forecasts(forecaster: Forecaster, prepared: Prepared) -> Tensor:
    """The medians that it serves at each reading, (1 + K, T, N)."""
    was_training = forecaster.training
    forecaster.eval()
    medians = run(forecaster, prepared)[0].mean(0)[:, forecaster.band[0]]
    forecaster.train(was_training)
    return medians


def by_position(medians: Tensor, target: Tensor, positions: Sequence[int] = POSITIONS) -> dict[int, float]:
    """The error after so many readings of a new series, divided by that of repeating the last value.

    `medians` and `target` are (1 + K, T, N), relative to the last value, NaN where there is nothing to judge. Each
    series counts in units of its own mean difference; steps ahead are averaged as logarithms. Positions that the
    windows don't reach are left out.
    """
    known = ~target.isnan()
    move = target.nan_to_num().abs()
    size = move[0].sum(0) / known[0].sum(0)  # (N,) the mean difference; 0 or NaN: a flat series says nothing
    weight = torch.where(size > 0, 1 / size, 0).nan_to_num()
    own = (target.nan_to_num() - medians).abs() * known * weight
    naive = move * weight
    errors = {}
    for position in positions:
        part = slice(position - 1, position + max(int(position * _WIDTH_SHARE), 1))
        if own[:, part].shape[1] == 0:
            continue
        sums = own[:, part].sum((1, 2)), naive[:, part].sum((1, 2))  # (1 + K,) each
        if bool((sums[1] > 0).all()):
            errors[position] = float((sums[0] / sums[1]).clamp(1e-3, 1e3).log().mean().exp())
    return errors
