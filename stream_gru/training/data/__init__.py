"""What a fit learns from: batches of windows, made up or cut from history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from stream_gru.columns import Floats
from stream_gru.errors import DataError
from stream_gru.history import backtest
from stream_gru.models import scaling
from stream_gru.models.bundle import Description
from stream_gru.models.context import Context
from stream_gru.training.data import augment, missing, synthetic
from stream_gru.training.data.batches import group
from stream_gru.training.data.series import MIN_READINGS, Series, SeriesCollection, columns
from stream_gru.training.data.topic import TopicProgress, read_topic
from stream_gru.training.data.windows import Spans, Tape, Windows
from stream_gru.training.recipe import Data, Recipe

_BATCHES_AT_ONCE = 8  # batches that windows are drawn for, and grouped by length

__all__ = [
    "MIN_READINGS",
    "Recorded",
    "Series",
    "SeriesCollection",
    "Synthetic",
    "TopicProgress",
    "WindowSource",
    "Windows",
    "describe",
    "held_back",
    "read",
    "read_topic",
    "source",
]


class WindowSource(Protocol):
    """Where windows come from."""

    @property
    def readings(self) -> int | None:
        """How many there are; None: made up without end."""
        ...

    def batches(self, rng: np.random.Generator) -> Iterator[Windows]:
        """Batches to learn from, for ever; sizes may differ from one to the next."""
        ...

    def draw(self, n: int, length: int, rng: np.random.Generator) -> Windows:
        """`n` windows of at most `length` readings, shorter if there are no longer ones; never augmented."""
        ...


class Synthetic:
    """New made-up series, each time. Their covariates are unknown."""

    readings = None

    def __init__(self, plan: Data | None = None, covariates: int = 0) -> None:
        self._plan, self._covariates = plan or Data(), covariates

    def batches(self, rng: np.random.Generator) -> Iterator[Windows]:
        """Each batch is whole."""
        plan = self._plan
        size = plan.batch if plan.tokens is None else plan.tokens // plan.length
        if not size:
            group(np.array([plan.length]), rng, plan.batch, plan.tokens)  # says why not
        while True:  # many series take little more time to make than few
            drawn = augment.augment(
                self.draw(size * _BATCHES_AT_ONCE, plan.length, rng), plan.augment, plan.missing, rng
            )
            for rows in np.split(np.arange(size * _BATCHES_AT_ONCE), _BATCHES_AT_ONCE):
                yield drawn.take(rows)

    def draw(self, n: int, length: int, rng: np.random.Generator) -> Windows:
        """`n` series of `length` readings."""
        timestamp, value = synthetic.generate(n, length, rng)
        return Windows(
            timestamp,
            value,
            np.full(n, length),
            np.ones((n, length), np.bool_),
            np.zeros(n, np.int64),
            np.full((n, length, self._covariates), np.nan),
        )


class Recorded:
    """Windows of history: sliding by a stride, shuffled anew each time round, or starting anywhere."""

    def __init__(self, history: SeriesCollection, plan: Data, bundle: Path | None = None) -> None:
        """`bundle` is the model whose forecasts fill gaps, if `plan` says so. Raises `DataError`."""
        self._plan = plan
        kept = history.recent(plan.recent) if plan.recent else history
        self._tape = Tape(missing.fill(kept.series, plan.missing, bundle))
        self._sliding = None if plan.stride is None else self._tape.sliding(plan.length, plan.stride)
        longest = min(plan.length, int(self._tape.sizes.max()))
        group(np.array([longest]), np.random.default_rng(0), 1, plan.tokens)  # says at once what can never fit

    @property
    def readings(self) -> int:
        """Values, without those that were filled in."""
        return len(self._tape)

    @property
    def windows(self) -> int | None:
        """How many make one epoch; None: they start anywhere."""
        return None if self._sliding is None else len(self._sliding)

    def batches(self, rng: np.random.Generator) -> Iterator[Windows]:
        """Windows of like length together, in random order."""
        plan = self._plan
        while True:
            spans = self._sliding or self._anywhere(rng)
            for rows in group(spans.length, rng, plan.batch, plan.tokens):
                yield augment.augment(self._tape.cut(spans.take(rows)), plan.augment, plan.missing, rng)

    def _anywhere(self, rng: np.random.Generator) -> Spans:
        batch = self._plan.batch if self._plan.tokens is None else max(self._plan.tokens // self._plan.length, 1)
        return self._tape.anywhere(batch * _BATCHES_AT_ONCE, self._plan.length, rng)

    def draw(self, n: int, length: int, rng: np.random.Generator) -> Windows:
        """`n` windows that start anywhere."""
        return self._tape.cut(self._tape.anywhere(n, length, rng))


def source(history: SeriesCollection | None, recipe: Recipe, bundle: Path | None = None) -> WindowSource:
    """What `recipe` learns from: windows of `history`, or made-up series without it.

    `bundle` is the model whose forecasts fill gaps, if the recipe says so. Raises `DataError` for what does not fit.
    """
    if history is None:
        return Synthetic(recipe.data, len(recipe.context.covariates))
    _check(history, recipe)
    return Recorded(history, recipe.data, bundle)


def held_back(
    history: SeriesCollection, recipe: Recipe, n: int = 256, seed: int = 0, bundle: Path | None = None
) -> Windows:
    """`n` windows to test on: what is missing is filled in as in service, nothing is augmented."""
    _check(history, recipe)
    plan = recipe.data.model_copy(update={"missing": missing.SERVED[recipe.data.missing], "recent": None})
    return Recorded(history, plan, bundle).draw(n, plan.length, np.random.default_rng([seed, 1]))


def describe(recipe: Recipe, name: str, history: SeriesCollection | None) -> Description:
    """The bundle that a fit of `recipe` on `history` makes, scales of values and covariates fitted on all of it.

    Raises `DataError` for a fixed scale of made-up series, which come in all sizes.
    """
    data, context = recipe.data, recipe.context
    if history is None and data.scaling != "online":
        raise DataError(f"data.scaling {data.scaling} is fitted to history; made-up series have all sizes: use online")
    scale = scaling.Scaling()
    if history is not None:
        _check(history, recipe)
        kept = history.recent(data.recent) if data.recent else history
        scale = scaling.fit(data.scaling, _by_feature(kept))
        context = _fitted(context, kept)
    return Description(
        name=name,
        features=recipe.features,
        network=recipe.network,
        horizons=recipe.horizons,
        context=context,
        scaling=scale,
        missing=missing.SERVED[data.missing],
    )


def _by_feature(history: SeriesCollection) -> list[Floats]:
    count = 1 + max(one.feature for one in history.series)
    none = np.empty(0)
    return [np.concatenate([none, *(s.value for s in history.series if s.feature == f)]) for f in range(count)]


def _fitted(context: Context, history: SeriesCollection) -> Context:
    return context.fitted(np.concatenate([one.covariates for one in history.series]))


def _check(history: SeriesCollection, recipe: Recipe) -> None:
    if not recipe.context.are(history.covariates):
        there, wanted = (", ".join(names) or "none" for names in (history.covariates, recipe.context.covariates))
        raise DataError(
            f"the history has these covariates: {there}; the recipe's context.covariates: {wanted}; name the same there"
        )


def read(
    files: Sequence[Path], time: str, values: Sequence[str], key: str | None, covariates: Sequence[str] = ()
) -> SeriesCollection:
    """The series of history files; each value column of each key is one, of the feature with its number.

    The same key in two files is two series. Raises `DataError` for what can't be read.
    """
    series = []
    for file, table in zip(files, backtest.read(files, time, values, key, covariates), strict=True):
        names = table.series
        series += columns(names, table.timestamp, table.value, table.covariates, f"{file.stem}/" if key else "")
    return SeriesCollection(series, covariates)
