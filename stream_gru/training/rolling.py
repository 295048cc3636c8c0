"""How good a bundle is in service: the engine runs over a history, and its forecasts are judged origin by origin."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stream_gru.columns import Bools, Floats, Ints
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import DataError
from stream_gru.history import backtest
from stream_gru.history.files import History
from stream_gru.models import bundle as bundles
from stream_gru.training.data.series import Series, SeriesCollection
from stream_gru.training.recipe import Recipe
from stream_gru.training.validate import JudgedPart, Score, learn, times

_RATIO_BOUNDS = (1e-3, 1e3)  # of one series, so that none decides a geometric mean
Tell = Callable[[str, float], None]  # what is done, and how far it is: 0-1


@dataclass(frozen=True, slots=True)
class Origins:
    """Where forecasts are judged."""

    every: int = 1  # readings from one to the next
    blocks: int = 5  # of time, each with a score of its own
    after: float = 0.0  # share of each series before the first; what a fit learns from
    period: int | None = None  # readings in a season; the value a period ago is then judged too


def by_origins(
    history: SeriesCollection,
    model: Recipe | Path | None,
    plan: Origins,
    tell: Tell = lambda *_: None,
    *,
    device: str = "auto",
) -> list[JudgedPart]:
    """One model over the whole history, as in service, judged from the origins of `plan`.

    A recipe is fitted once, on the share before the first origin; a path is a bundle's folder; none: the package's.
    """
    trained = None
    if not isinstance(model, Recipe):
        engine = _engine(model, history, device)
    else:
        past = history.between(0, plan.after)
        fitted = learn(model, past, "rolling", lambda now: tell("fit", now.progress), device)
        with TemporaryDirectory() as folder:
            bundles.save(Path(folder), fitted.description, fitted.forecaster)
            engine, trained = _engine(Path(folder), history, device), len(past)
    done = 0

    def count(readings: int) -> None:
        nonlocal done
        done += readings
        tell("forecasts", done / len(history))

    return rolling(tracks(engine, history, count), engine.steps, plan, trained)


def _engine(bundle: Path | None, history: SeriesCollection, device: str) -> Stepper:
    features = max(1, len(bundles.load(bundle).description.scaling.loc))
    return Stepper(bundle, features=features, capacity=len(history.series), device=device)


@dataclass(frozen=True, slots=True)
class Track:
    """T readings of one series and what was forecast from each, at S steps ahead."""

    timestamp: Ints  # (T,) epoch ms
    value: Floats  # (T,), NaN = missing
    forecast: Floats  # (T, S, 3) median, lower, upper; NaN: none


def tracks(engine: Stepper, history: SeriesCollection, tell: Callable[[int], None] = lambda _: None) -> list[Track]:
    """Run the engine over the whole history, as a worker would. `tell` gets the number of readings of each portion.

    Raises `DataError` when the history lacks the covariates that the bundle wants.
    """
    if history.covariates != engine.covariates:
        wanted, got = (", ".join(names) or "none" for names in (engine.covariates, history.covariates))
        raise DataError(f"{engine.bundle.name} wants the covariates {wanted}; the history has {got}")
    steps_by_reading = engine.bundle.description.missing == "mask"  # a missing value is then no step
    series = [_without_missing(one) if steps_by_reading else one for one in history.series]
    features = [one.feature if len(engine.features) > 1 else 0 for one in series]
    tables = []
    for one, feature in zip(series, features, strict=True):
        value = np.full((len(one), len(engine.features)), np.nan)
        value[:, feature] = one.value
        tables.append(History([one.name] * len(one), one.timestamp, value, one.covariates))
    made = backtest.score(engine, tables, tell)
    return [
        Track(one.timestamp, one.value, forecasts.ahead[..., feature])
        for one, forecasts, feature in zip(series, made, features, strict=True)
    ]


def _without_missing(one: Series) -> Series:
    real = np.isfinite(one.value)
    return Series(one.timestamp[real], one.value[real], one.feature, one.covariates[real], one.name)


def rolling(
    tracks: Sequence[Track], steps: tuple[int, ...], plan: Origins, trained: int | None = None
) -> list[JudgedPart]:
    """The errors from the origins of `plan`, in blocks of time.

    Raises `DataError` when no series has as many origins as there are blocks.
    """
    first = max(1, plan.period or 0)
    origins = [
        np.arange(max(round(len(one.value) * plan.after), first), len(one.value) - 1, plan.every) for one in tracks
    ]
    if (most := max(map(len, origins))) < plan.blocks:
        raise DataError(
            f"there are {most} origins for {plan.blocks} blocks; take fewer blocks, origins closer to each other or a "
            "longer history"
        )
    made = []
    for block in zip(*(np.array_split(index, plan.blocks) for index in origins), strict=True):
        stamps = [one.timestamp[index] for one, index in zip(tracks, block, strict=True)]
        score = judge(tracks, block, steps, plan.period)
        made.append(JudgedPart(trained, sum(map(len, block)), *times(stamps), score))
    return made


def judge(tracks: Sequence[Track], origins: Sequence[Ints], steps: tuple[int, ...], period: int | None = None) -> Score:
    """The errors of the forecasts from these readings of each series."""
    score = Score(steps, [], [], [], None if period is None else [])
    for s, ahead in enumerate(steps):
        model, naive, seasonal, inside = [], [], [], []  # of each series
        for one, index in zip(tracks, origins, strict=True):
            last = _forward(one.value)
            at = index[index + ahead < len(one.value)]
            middle, low, high = one.forecast[at, s].T
            target = one.value[at + ahead]
            ago = last[at + ahead - math.ceil(ahead / period) * period] if period else last[at]
            known = np.isfinite(target) & np.isfinite(middle) & np.isfinite(last[at]) & np.isfinite(ago)
            model.append(np.abs(target - middle)[known])
            naive.append(np.abs(target - last[at])[known])
            inside.append(((target >= low) & (target <= high))[known])
            seasonal.append(np.abs(target - ago)[known])
        score.error.append(_relative(model, naive))
        score.mae.append(_mean(model))
        score.coverage.append(_mean(inside))
        if score.seasonal is not None:
            score.seasonal.append(_relative(seasonal, naive))
    return score


def _relative(own: Sequence[Floats], naive: Sequence[Floats]) -> float:
    """Geometric mean of the ratios of the errors; a series that does not move has none."""
    ratios = [float(a.sum() / b.sum()) for a, b in zip(own, naive, strict=True) if b.sum() > 0]
    return statistics.geometric_mean(np.clip(ratios, *_RATIO_BOUNDS)) if ratios else math.nan


def _mean(parts: Sequence[Floats] | Sequence[Bools]) -> float:
    everything = np.concatenate(parts)
    return float(everything.mean()) if len(everything) else math.nan


def _forward(value: Floats) -> Floats:
    """The last value that there was."""
    last = np.maximum.accumulate(np.where(np.isnan(value), 0, np.arange(len(value))))
    return value[last]
