"""How good a recipe is, in order of time: fits on longer and longer pasts, each judged on what comes after its own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from stream_gru.columns import Ints
from stream_gru.errors import DataError, TrainingError
from stream_gru.training.data.series import MIN_READINGS, Series, SeriesCollection

if TYPE_CHECKING:
    from stream_gru.models.bundle import Description
    from stream_gru.models.forecaster import Forecaster
    from stream_gru.training.data.windows import Windows
    from stream_gru.training.fit import FitProgress, Fitted
    from stream_gru.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Score:
    """Errors at each step ahead."""

    steps: tuple[int, ...]
    error: list[float]  # of the last value's, geometric mean over series
    mae: list[float]  # mean absolute error in units of the data
    coverage: list[float]  # share of readings inside the 90% interval
    seasonal: list[float] | None = None  # the same as `error` for the value a period ago


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """One fold, or one block of origins."""

    trained: int | None  # readings that the model learned from; None: a bundle does not say
    judged: int  # readings after them in a fold; forecasts in a block
    begin: int  # epoch ms of the first of these, the earliest of all series
    end: int
    score: Score


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean over the blocks and their standard deviation (of a sample; None for one block), at each step ahead."""

    mean: list[float]
    deviation: list[float] | None


def spread(columns: Sequence[Sequence[float]]) -> Spread:
    """Of B blocks with a number for each of S steps. What is not finite in a block is left out of its step."""
    by_step = [[value for value in column if math.isfinite(value)] for column in zip(*columns, strict=True)]
    mean = [statistics.fmean(values) if values else math.nan for values in by_step]
    if len(columns) < 2:
        return Spread(mean, None)
    return Spread(mean, [statistics.stdev(values) if len(values) > 1 else math.nan for values in by_step])


def summary(blocks: Sequence[JudgedPart]) -> dict[str, Spread]:
    """`spread` of each measure."""
    measures = {
        name: [getattr(block.score, name) for block in blocks] for name in ("error", "mae", "coverage", "seasonal")
    }
    return {name: spread(columns) for name, columns in measures.items() if None not in columns}


def folds(
    history: SeriesCollection, count: int, gap: int = 0, max_train_size: int | None = None
) -> Iterator[tuple[SeriesCollection, SeriesCollection]]:
    """The past and what comes `gap` readings after it, `count` times with a longer and longer past.

    Each series is split by its own readings; one that is too short for a fold takes no part in it. Raises `DataError`
    when all are.
    """
    parts: list[list[tuple[Series, Series]]] = [[] for _ in range(count)]
    for one in history.series:
        for fold, (past, after) in zip(parts, _split(len(one), count, gap, max_train_size), strict=False):
            if min(len(past), len(after)) >= MIN_READINGS:
                fold.append((one.part(past.start, past.stop), one.part(after.start, after.stop)))
    for number, fold in enumerate(parts):
        if not fold:
            raise DataError(
                f"fold {number + 1} of {count}: no series has {MIN_READINGS} readings to learn from and as many after "
                f"them; the longest has {max(map(len, history.series))}. Take fewer folds or a smaller gap"
            )
        pasts, afters = zip(*fold, strict=True)
        yield SeriesCollection(pasts, history.covariates), SeriesCollection(afters, history.covariates)


def _split(length: int, count: int, gap: int, max_train_size: int | None) -> list[tuple[range, range]]:
    """The readings of each fold, none when there are too few of them."""
    try:
        from sklearn.model_selection import TimeSeriesSplit  # type: ignore[import-untyped]  # it ships no types
    except ImportError:
        raise TrainingError("validation needs the `training` extra: pip install 'stream-gru[training]'") from None
    splitter = TimeSeriesSplit(count, gap=gap, max_train_size=max_train_size)
    try:
        pairs = list(splitter.split(np.empty(length)))
    except ValueError:
        return []
    return [(range(past[0], past[-1] + 1), range(after[0], after[-1] + 1)) for past, after in pairs]


def learn(
    recipe: Recipe,
    past: SeriesCollection,
    name: str,
    tell: Callable[[FitProgress], None] = lambda _: None,
    device: str = "auto",
) -> Fitted:
    """A fit on `past` alone: its end, held back, says which weights are kept and when to stop."""
    from stream_gru.training import data, fit

    first, last = past.split(recipe.data.held_back)
    return fit.fit(
        recipe,
        data.source(first, recipe),
        data.held_back(last, recipe, seed=recipe.plan.seed),
        data.describe(recipe, name, first),
        tell=tell,
        device=device,
    )


def by_folds(
    recipe: Recipe,
    pairs: Sequence[tuple[SeriesCollection, SeriesCollection]],
    tell: Callable[[int, FitProgress], None] = lambda *_: None,
    device: str = "auto",
) -> Iterator[JudgedPart]:
    """For each fold a fit on the past, judged on windows of what comes after it, as new series.

    `tell` gets the number of the fold and how far its fit is.
    """
    from stream_gru.training import data

    for number, (past, after) in enumerate(pairs):
        fitted = learn(recipe, past, f"fold-{number + 1}", partial(tell, number), device)
        windows = data.held_back(after, recipe, seed=recipe.plan.seed)
        score = judge_windows(fitted.forecaster, fitted.description, windows)
        yield JudgedPart(len(past), len(after), *times([one.timestamp for one in after.series]), score)


def judge_windows(forecaster: Forecaster, description: Description, windows: Windows) -> Score:
    """The errors of `objective.evaluate`, and the mean absolute one."""
    import torch

    from stream_gru.training import objective
    from stream_gru.training.prepare import prepare

    prepared = prepare(windows, description, next(forecaster.parameters()).device)
    quality = objective.evaluate(forecaster, prepared)
    with torch.no_grad():
        middle = objective.run(forecaster, prepared)[0].mean(0)[:, 0]  # (1 + K, T, N)
    mae = [float(miss[~miss.isnan()].mean()) for miss in (middle - prepared.target).abs().unbind()]
    return Score(quality.steps, quality.error, mae, quality.coverage)


def times(timestamps: Sequence[Ints]) -> tuple[int, int]:
    """The earliest and the latest."""
    held = [times for times in timestamps if len(times)]
    return min(int(times[0]) for times in held), max(int(times[-1]) for times in held)
