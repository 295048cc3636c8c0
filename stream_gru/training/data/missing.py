"""What takes the place of a missing value before a fit: nothing, the last value, a line, or a model's forecast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from stream_gru.columns import Floats, Ints
from stream_gru.training.data.series import Series
from stream_gru.training.data.windows import Filled

How = Literal["mask", "forward", "interpolate", "forecast"]

SERVED: dict[How, Literal["mask", "forward", "forecast"]] = {
    "mask": "mask",
    "forward": "forward",
    "interpolate": "forecast",
    "forecast": "forecast",
}
"""What the bundle does in service: the end of a gap isn't known there, so a line can't be drawn."""


def fill(series: Sequence[Series], how: How, bundle: Path | None = None) -> list[Filled]:
    """The series without missing values, each from its first value to its last; those without any are left out.

    ``mask`` leaves them out, ``forward`` repeats the value before, ``interpolate`` draws a line in time, ``forecast``
    takes the one-step forecasts of `bundle`, none: the one in the package.
    """
    trimmed = [_trim(one) for one in series if np.isfinite(one.value).any()]
    if how == "mask":
        return [_masked(one) for one in trimmed]
    if how == "forward":
        values = [forward(one.value) for one in trimmed]
    elif how == "interpolate":
        values = [interpolate(one.timestamp, one.value) for one in trimmed]
    else:
        values = _forecast(trimmed, bundle)
    return [
        Filled(one.timestamp, value, np.isfinite(one.value), one.covariates, one.feature)
        for one, value in zip(trimmed, values, strict=True)
    ]


def forward(value: Floats) -> Floats:
    """Repeat the last value (..., T) that there was; what lacks one before it stays missing."""
    last = np.maximum.accumulate(np.where(np.isnan(value), 0, np.arange(value.shape[-1])), axis=-1)
    return np.take_along_axis(value, last, -1)


def interpolate(timestamp: Ints, value: Floats) -> Floats:
    """Draw a line in time between the values (T,) around a gap."""
    real = np.isfinite(value)
    return np.where(real, value, np.interp(timestamp, timestamp[real], value[real]))


def _trim(one: Series) -> Series:
    real = np.flatnonzero(np.isfinite(one.value))
    return one.part(int(real[0]), int(real[-1]) + 1)


def _masked(one: Series) -> Filled:
    real = np.isfinite(one.value)
    rows = one.timestamp[real], one.value[real], np.ones(int(real.sum()), np.bool_), one.covariates[real]
    return Filled(*rows, one.feature)


def _forecast(series: Sequence[Series], bundle: Path | None) -> list[Floats]:
    if not any(np.isnan(one.value).any() for one in series):
        return [one.value for one in series]
    from stream_gru.engine.stepper import Stepper
    from stream_gru.history import backtest
    from stream_gru.history import files as history
    from stream_gru.models import bundle as bundles

    loaded = bundles.load(bundle)
    description = loaded.description.model_copy(update={"missing": "forecast"})  # it goes on with its own forecasts
    features, covariates = max(len(description.scaling.loc), 1), len(description.context.covariates)
    tables = []
    for one in series:
        value = np.full((len(one), features), np.nan)
        value[:, min(one.feature, features - 1)] = one.value
        extras = one.covariates if one.covariates.shape[1] == covariates else np.full((len(one), covariates), np.nan)
        tables.append(history.History([one.name] * len(one), one.timestamp, value, extras))
    with TemporaryDirectory() as folder:
        bundles.save(Path(folder), description, loaded.forecaster)
        engine = Stepper(Path(folder), features=features, capacity=len(series), device="cpu")
    made = backtest.score(engine, tables, lambda _: None)
    return [
        np.where(np.isnan(one.value), forecasts.yhat[:, min(one.feature, features - 1)], one.value)
        for one, forecasts in zip(series, made, strict=True)
    ]
