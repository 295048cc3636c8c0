"""What the gates did, reading by reading: the engine over some series, a table and a picture of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from stream_gru.columns import LEVEL_NAMES, Forecasts, Ints, Readings, waves
from stream_gru.engine import gates
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import DataError
from stream_gru.history import backtest, plot
from stream_gru.history.files import History

Activations = dict[str, npt.NDArray[np.float32]]  # by gate, (N, F, R); NaN where a reading was not stepped

SUMMARY = ("mean", "q25", "q50", "q75", "closed", "open")  # what `summary` keeps
CLOSED, OPEN = 0.05, 0.95  # of a gate, 0-1: a unit beyond is saturated and learns next to nothing


def summary(gate: Tensor) -> Tensor:
    """Activations (n, units) -> mean, quartiles, and the shares of closed and of open units, (n, 6)."""
    quantiles = torch.quantile(gate, gate.new_tensor([0.25, 0.5, 0.75]), dim=1)
    shares = torch.stack([(gate < CLOSED).float().mean(1), (gate > OPEN).float().mean(1)])
    return torch.cat([gate.mean(1)[None], quantiles, shares]).T


def trace(
    engine: Stepper,
    readings: Readings,
    reduce: Callable[[Tensor], Tensor] = summary,
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[Forecasts, Activations]:
    """Step N `readings`, and what `reduce` makes of the gates' activations (n, units) in each, (n, R).

    A reading that is not stepped, as a missing one, has NaN. Raises `BundleError` for a model without gates and
    `DataError` where there are no readings.
    """
    gates.names(engine.bundle.forecaster.network)
    if not len(readings):
        raise DataError("there are no readings to look at")
    features, recorder = len(engine.features), gates.Recorder(reduce)
    parts, order, found = [], [], Activations()
    engine.watch, before = recorder, engine.watch
    try:
        for index in waves(readings.slot):
            recorder.clear()
            wave = readings.take(index)
            parts.append(engine.step(wave))
            order.append(index)
            slot, feature = np.divmod(recorder.bodies, features)
            by_slot = np.argsort(wave.slot)
            rows = index[by_slot[np.searchsorted(wave.slot[by_slot], slot)]]
            for name, values in recorder.gates.items():
                if name not in found:
                    found[name] = np.full((len(readings), features, values.shape[1]), np.nan, np.float32)
                found[name][rows, feature] = values
            tell(len(index))
    finally:
        engine.watch = before
    return backtest.in_order(parts, order), found


def table(history: History, forecasts: Forecasts, found: Activations, features: Sequence[str]) -> pl.DataFrame:
    """A row for each reading and feature: what was forecast of it, its score, and a `summary` of each gate."""
    n, width = forecasts.y.shape

    def each(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.repeat(column, width)

    columns = {
        "series": each(np.array(history.series)),
        "timestamp": each(history.timestamp),
        **({"feature": np.tile(np.array(features), n)} if width > 1 else {}),
        "y": forecasts.y.ravel(),
        "yhat": forecasts.yhat.ravel(),
        "yhat_lower": forecasts.lower.ravel(),
        "yhat_upper": forecasts.upper.ravel(),
        "anomaly_score": each(forecasts.anomaly_score),
        "is_anomaly": each(forecasts.is_anomaly),
        "level": each(np.array(LEVEL_NAMES)[forecasts.level]),
    }
    for name, values in found.items():
        flat = values.reshape(n * width, len(SUMMARY))
        columns |= {f"{name}_{what}": flat[:, i] for i, what in enumerate(SUMMARY)}
    return pl.DataFrame(columns, nan_to_null=True)


@dataclass(frozen=True, slots=True)
class GatesResult:
    """What was made of it."""

    table: Path
    picture: Path
    series: int
    readings: int
    anomalies: int
    gates: dict[str, dict[str, float]]  # by gate: the means over readings of what `SUMMARY` names


def run(
    engine: Stepper,
    history: History,
    out: Path,
    name: str,
    *,
    last: int | None = None,
    kind: Literal["csv", "parquet"] = "csv",
    tell: Callable[[int], None] = lambda _: None,
) -> GatesResult:
    """Step all of `history`; write `out`/NAME-gates.csv or .parquet, and .png, with the `last` readings of each series.

    Raises `BundleError` for a model without gates, `DataError` where there are no readings or no matplotlib.
    """
    plot.require()
    if history.covariates.shape[1] != len(engine.covariates):
        wanted = ", ".join(engine.covariates) or "none"
        raise DataError(f"{history.covariates.shape[1]} covariates are given; the model wants {wanted}")
    forecasts, found = trace(engine, backtest.admit(engine, [history]), tell=tell)
    shown = _last(history.series, last)
    series = [history.series[row] for row in shown]
    history = History(series, history.timestamp[shown], history.value[shown], history.covariates[shown])
    forecasts, found = forecasts.take(shown), {gate: values[shown] for gate, values in found.items()}
    out.mkdir(parents=True, exist_ok=True)
    stem = (re.sub(r"[^\w.=-]+", "_", name).strip("._") or "series") + "-gates"
    rows, target = table(history, forecasts, found, engine.features), out / f"{stem}.{kind}"
    rows.write_csv(target) if kind == "csv" else rows.write_parquet(target)
    picture = plot.draw(out / f"{stem}.png", name, history, forecasts, engine.features, gates=found)
    known = {gate: values[np.isfinite(values[..., 0])] for gate, values in found.items()}  # (stepped, 6)
    means = {gate: dict(zip(SUMMARY, _mean(values), strict=True)) for gate, values in known.items() if len(values)}
    flags = int(np.count_nonzero(forecasts.is_anomaly))
    return GatesResult(target, picture, len(set(series)), len(series), flags, means)


def _mean(values: npt.NDArray[np.float32]) -> list[float]:
    return [round(float(mean), 4) for mean in values.mean(0, dtype=np.float64)]


def _last(series: Sequence[str], n: int | None) -> Ints:
    """The rows that are among the last `n` of their series."""
    if n is None:
        return np.arange(len(series))
    _, member = np.unique(np.array(series), return_inverse=True)
    back = [index for _, index in zip(range(n), waves(member[::-1]), strict=False)]
    return np.sort(len(series) - 1 - np.concatenate(back))
