"""What a fit minimises, and how good a forecaster is."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from stream_gru.features import FeatureView
from stream_gru.models.forecaster import Forecaster
from stream_gru.training import packing
from stream_gru.training.prepare import Prepared

_FAR_WEIGHT = 0.7  # weight of the farther horizons together, the next step counts 1
_READINGS_AT_ONCE = 65_536  # readings that are evaluated in one go: memory grows with them


@dataclass(slots=True)
class Quality:
    """Errors over windows, divided by those of repeating the last value, for each step ahead; coverage of 90%."""

    steps: tuple[int, ...]
    error: list[float] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)
    loss: float = float("nan")  # of the averaged forecast

    def __str__(self) -> str:
        parts = zip(self.steps, self.error, self.coverage, strict=True)
        return ", ".join(f"{s} ahead: error {e:.3f} of the last value's, coverage {c:.1%}" for s, e, c in parts)


def loss(forecaster: Forecaster, forecast: Tensor, prepared: Prepared) -> Tensor:
    """Pinball loss of quantiles (..., 1 + K, Q, T, N) on the asinh scale, where a spike counts no more than it should,
    around the forecast of the best anchor.

    Targets that are NaN don't count. Each member of an ensemble, (M, ...), has a loss of its own: their sum is what
    they would have minimised alone.
    """
    known = ~prepared.target.isnan()
    centre = _favourite(forecaster, prepared)[:, None]  # (1 + K, 1, T, N)
    q = torch.asinh((forecast - centre) / prepared.scale)
    y = torch.asinh((prepared.target.nan_to_num()[:, None] - centre) / prepared.scale)
    taus = torch.tensor(forecaster.levels, device=q.device)[:, None, None]
    miss = y - q
    each = torch.maximum(taus * miss, (taus - 1) * miss).sum(-3) * known
    by_step = each.sum((-1, -2)) / known.sum((1, 2)).clamp(min=1)  # (..., 1 + K)
    far = by_step[..., 1:].mean(-1) if by_step.shape[-1] > 1 else 0
    return (by_step[..., 0] + _FAR_WEIGHT * far).sum()


def _favourite(forecaster: Forecaster, prepared: Prepared) -> Tensor:
    """What the anchor with the least running error forecasts, (1 + K, T, N)."""
    best = prepared.x[forecaster.features.errors].argmin(0)
    anchors = torch.nn.functional.pad(prepared.moves, (0, 0, 0, 0, 1, 0))  # the first is the last value: no move
    return anchors.gather(1, best.expand(len(anchors), 1, -1, -1))[:, 0]


def run(forecaster: Forecaster, prepared: Prepared, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Forecasts of each member (M, 1 + K, Q, T, N) from every reading, and the network's state (N, S) after them.

    Padding is passed over: the state is that after each sequence's own last reading. Under autocast the network alone
    is run in half precision: quantiles may lie 80,000 units away, which it can't hold.
    """
    _, length, n = prepared.x.shape
    before = forecaster.network.initial_state(n) if state is None else state
    x = prepared.x.movedim(0, 2)
    if prepared.padded:
        outputs, after = packing.unroll(forecaster.network, x, before, prepared.length.flatten())
    else:
        outputs, after = forecaster.network.unroll(x, before)
    with torch.autocast(prepared.x.device.type, enabled=False):
        view = FeatureView(*(part.flatten(-2) for part in (prepared.x, prepared.moves, prepared.unit)))
        flat = forecaster.members(outputs.float().flatten(0, 1), view, prepared.steps.expand(-1, length, -1).flatten(1))
    return flat.view(*flat.shape[:-1], length, n), after.float()


@torch.no_grad()
def evaluate(forecaster: Forecaster, prepared: Prepared) -> Quality:
    """Median absolute errors in units of each series' scale, against repeating the last value."""
    was_training = forecaster.training
    forecaster.eval()
    some = max(1, _READINGS_AT_ONCE // prepared.x.shape[1])
    forecast = torch.cat([run(forecaster, part)[0].mean(0) for part in prepared.split(some, -1)], -1)
    forecaster.train(was_training)
    known = ~prepared.target.isnan()
    quality = Quality(forecaster.steps, loss=loss(forecaster, forecast, prepared).item())
    for k in range(len(forecaster.steps)):
        target, real = prepared.target[k].nan_to_num(), known[k]
        middle, low, high = forecast[k, forecaster.band]
        own = ((target - middle).abs() * real).sum(0)
        naive = (target.abs() * real).sum(0)
        moving = naive > 0
        ratio = (own[moving] / naive[moving]).clamp(1e-3, 1e3)
        quality.error.append(float(ratio.log().mean().exp()))
        inside = (target >= low) & (target <= high)
        quality.coverage.append(float(inside[real].float().mean()))
    return quality
