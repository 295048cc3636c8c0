"""Fit a forecaster: truncated backpropagation over the very features and cell that the engine steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stream_gru import features
from stream_gru.models.forecaster import QUANTILES, Forecaster
from stream_gru.training.data import Source, Windows

_FAR = 0.7  # weight of the farther horizons together, the next step counts 1
_SETTLED = 2  # readings before a forecast counts
_AT_ONCE = 8  # batches whose features are stepped together
_LEAST_UNIT = 0.02  # of the series' own mean difference: a lucky streak of a flat series may not weigh more


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. Give `steps` for a result that can be repeated, or `minutes`."""

    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    warm_up: int = 60  # steps
    batch: int = 64  # windows
    length: int = 1024  # of a window, readings
    chunk: int = 256  # gradients reach so far back


class Prepared(NamedTuple):
    """Windows as the network meets them: T readings of N series."""

    x: Tensor  # (D, T, N) inputs of the cell
    moves: Tensor  # (A - 1, T, N)
    unit: Tensor  # (1, T, N)
    target: Tensor  # (1 + K, T, N) values at the steps, relative to the last; NaN: not to be learned
    scale: Tensor  # (1, T, N) what one is in the loss

    def split(self, size: int, dim: int) -> Iterator[Prepared]:
        """Portions of `size` readings (`dim` 1) or series (`dim` 2)."""
        return (Prepared(*parts) for parts in zip(*(torch.split(part, size, dim) for part in self), strict=True))


@dataclass(slots=True)
class Report:
    """How far a fit has come."""

    step: int
    progress: float  # 0-1
    loss: float
    readings: int
    seconds: float


@dataclass(slots=True)
class Quality:
    """Errors over windows, divided by those of repeating the last value, for each step ahead; coverage of 90%."""

    steps: tuple[int, ...]
    error: list[float] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        parts = zip(self.steps, self.error, self.coverage, strict=True)
        return ", ".join(f"{s} ahead: error {e:.3f} of the last value's, coverage {c:.1%}" for s, e, c in parts)


@torch.no_grad()
def prepare(windows: Windows, steps: tuple[int, ...], device: torch.device) -> Prepared:
    """Step the features through the windows, as the engine would for new series."""
    n, length = windows.value.shape
    last = np.full((n, length), np.nan)
    last[:, 1:] = windows.value[:, :-1]
    before = np.zeros((n, length), np.int64)
    before[:, 1:] = windows.timestamp[:, :-1]
    seen = np.repeat(np.arange(length), n)
    columns = features.observe(
        windows.value.T.ravel(), windows.timestamp.T.ravel(), last.T.ravel(), before.T.ravel(), seen
    )  # (OBSERVED, T N)
    observed = torch.from_numpy(columns).to(device).view(len(columns), length, n)
    state = features.Features(*(torch.zeros(width, n, device=device) for width in features.FIELDS.values()))
    constants = features.Constants.on(device)
    xs, moves, units = [], [], []
    for t in range(length):
        now = features.Observation.of(observed[:, t])
        state = features.update(state, now, constants)
        x, unit = features.inputs(state, now)
        xs.append(x)
        moves.append(features.moves(state))
        units.append(unit)
    target, size = _targets(windows, steps)
    unit = torch.stack(units, 1)  # (1, T, N)
    scale = torch.maximum(unit, torch.from_numpy(size).to(device) * _LEAST_UNIT)
    return Prepared(torch.stack(xs, 1), torch.stack(moves, 1), unit, torch.from_numpy(target).to(device), scale)


def _targets(windows: Windows, steps: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Values `steps` ahead less the present one, (1 + K, T, N), and the mean difference of each series, (N,)."""
    value, length = windows.value, windows.value.shape[1]
    target = np.full((len(steps), length, len(value)), np.nan, np.float32)
    for k, ahead in enumerate(steps):
        if ahead < length:
            target[k, :-ahead] = (value[:, ahead:] - value[:, :-ahead]).T
        arrives = np.arange(length)[:, None] + ahead
        target[k][(arrives >= windows.length) | (np.arange(length)[:, None] < _SETTLED)] = np.nan
    size = np.abs(np.diff(value, axis=1)).sum(1) / np.maximum(windows.length - 1, 1)
    return target, (size + 1e-12 * np.abs(value).max(1) + 1e-30).astype(np.float32)


def loss(forecast: Tensor, prepared: Prepared) -> Tensor:
    """Pinball loss of quantiles (1 + K, 3, T, N) on the asinh scale, where a spike counts no more than it should."""
    known = ~prepared.target.isnan()
    q = torch.asinh(forecast / prepared.scale)
    y = torch.asinh(prepared.target.nan_to_num() / prepared.scale)[:, None]
    taus = torch.tensor(QUANTILES, device=q.device)[:, None, None]
    miss = y - q
    each = torch.maximum(taus * miss, (taus - 1) * miss).sum(1) * known
    by_step = each.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)
    return by_step[0] + (_FAR * by_step[1:].mean() if len(by_step) > 1 else 0)


def run(forecaster: Forecaster, prepared: Prepared, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Forecasts (1 + K, 3, T, N) from every reading of the windows, and the cell's state (N, S) after them."""
    _, length, n = prepared.x.shape
    before = forecaster.cell.initial_state(n) if state is None else state
    outputs, after = forecaster.cell.unroll(prepared.x.movedim(0, 2), before)
    flat = forecaster.forecast(outputs.flatten(0, 1), prepared.moves.flatten(1), prepared.unit.flatten(1))
    return flat.reshape(*flat.shape[:2], length, n), after


def fit(forecaster: Forecaster, source: Source, plan: Plan, tell: Callable[[Report], None] = lambda _: None) -> Report:
    """Fit in place with AdamW, warm-up and a cosine to zero. Returns the last report; `loss` is a running mean."""
    device = next(forecaster.parameters()).device
    torch.manual_seed(plan.seed)
    optimiser = torch.optim.AdamW(
        forecaster.parameters(), plan.learning_rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay
    )
    report = Report(0, 0.0, float("nan"), 0, 0.0)
    state: Tensor | None = None
    began = time.monotonic()
    for prepared, follows in _chunks(source, plan, forecaster.steps, device):
        rate = plan.learning_rate * min(1.0, (report.step + 1) / plan.warm_up) * _cosine(report.progress)
        for group in optimiser.param_groups:
            group["lr"] = rate
        forecast, state = run(forecaster, prepared, state.detach() if follows and state is not None else None)
        value = loss(forecast, prepared)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call] # torch leaves it unannotated
        nn.utils.clip_grad_norm_(forecaster.parameters(), plan.clip)
        optimiser.step()
        report.step += 1
        report.seconds = time.monotonic() - began
        report.readings += prepared.unit.numel()
        report.loss = value.item() if report.step == 1 else report.loss + 0.05 * (value.item() - report.loss)
        by_steps = report.step / plan.steps if plan.steps else 0.0
        by_time = report.seconds / (plan.minutes * 60) if plan.minutes else 0.0
        report.progress = max(by_steps, by_time)
        tell(report)
        if report.progress >= 1:
            break
    return report


def _chunks(
    source: Source, plan: Plan, steps: tuple[int, ...], device: torch.device
) -> Iterator[tuple[Prepared, bool]]:
    """Chunks of windows for ever, and whether each goes on where the one before it ended.

    Several batches are prepared together: the features cost little more for many series than for few.
    """
    rng = np.random.default_rng(plan.seed)
    while True:
        windows = prepare(source.draw(plan.batch * _AT_ONCE, plan.length, rng), steps, device)
        for batch in windows.split(plan.batch, 2):
            for i, chunk in enumerate(batch.split(plan.chunk, 1)):
                yield chunk, i > 0


def _cosine(progress: float) -> float:
    return 0.5 * (1 + float(np.cos(np.pi * min(progress, 1.0))))


@torch.no_grad()
def evaluate(forecaster: Forecaster, windows: Windows) -> Quality:
    """Median absolute errors in units of each series' scale, against repeating the last value."""
    device = next(forecaster.parameters()).device
    prepared = prepare(windows, forecaster.steps, device)
    forecast, _ = run(forecaster, prepared)
    known = ~prepared.target.isnan()
    quality = Quality(forecaster.steps)
    for k in range(len(forecaster.steps)):
        target, real = prepared.target[k].nan_to_num(), known[k]
        middle, low, high = forecast[k]
        own = ((target - middle).abs() * real).sum(0)
        naive = (target.abs() * real).sum(0)
        moving = naive > 0
        ratio = (own[moving] / naive[moving]).clamp(1e-3, 1e3)
        quality.error.append(float(ratio.log().mean().exp()))
        inside = (target >= low) & (target <= high)
        quality.coverage.append(float(inside[real].float().mean()))
    return quality
