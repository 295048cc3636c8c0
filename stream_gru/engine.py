"""The model side, without Kafka or Redis: readings in, forecasts and scores out.

A batch passes in waves, so that each series comes at most once a wave. The host decides from the heads of the rows
which readings are applied; the device then steps the bodies of the features that are present: one gather, the straight
line score -> features -> step -> forecast, one scatter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from stream_gru import detector, features, settings
from stream_gru.arena import Arena
from stream_gru.batch import Forecasts, Ints, Level, Readings, waves
from stream_gru.errors import DataError, SettingsError
from stream_gru.frame import frame
from stream_gru.models import bundle as bundles
from stream_gru.row import Layout

# A product of fewer rows takes another path through the BLAS and rounds differently; small batches are filled up, so
# that a reading's result does not depend on its batch.
_LEAST = 16
_ANOMALY, _NORMAL = np.int8(Level.ANOMALY), np.int8(Level.NORMAL)
_OWN = 0  # the partition of the series that `score` is given
MAX_ABS_VALUE = 1e30  # of a reading


class Engine:
    """All series of one process: their rows in an arena, stepped by one set of weights."""

    def __init__(
        self,
        bundle: Path | None = None,
        *,
        features: int | Sequence[str] = 1,
        capacity: int = 1_000_000,
        device: str = "auto",
        threads: int = 1,
        detector: settings.Detector | None = None,
    ) -> None:
        """`bundle` is a folder, none: the one in the package. `features` is how many values a reading has, or their
        names; `capacity` the most series held at once. Raises `BundleError`, and `SettingsError` for the device."""
        self.device = _device(device)
        self.features = _names(features)
        self.capacity = capacity
        self.detector = detector or settings.Detector()
        self._scored = 0  # readings that `score` was given
        torch.set_num_threads(threads)
        self._take(bundles.load(bundle))

    def reload(self, bundle: Path | None) -> None:
        """Take another model. Every row starts anew: what was resident is dropped, open partitions stay open."""
        loaded = bundles.load(bundle)
        partitions = self.arena.partitions
        self._take(loaded)
        for partition in partitions:
            self.arena.open(partition)

    @property
    def memory(self) -> int:
        """Bytes that the resident rows and the weights take on the device."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        weights = sum(weight.numel() * weight.element_size() for weight in self._forecaster.parameters())
        return len(self.arena) * self.layout.row_bytes + weights

    def _take(self, bundle: bundles.Bundle) -> None:
        self.bundle = bundle
        self._forecaster = bundle.forecaster.to(self.device)
        self._constants = features.Constants.on(self.device)
        self._limits = detector.Constants.on(self.device)
        cell = self._forecaster.cell
        columns = {**features.FIELDS, "pending": 3 + bundle.horizons[0], **detector.FIELDS}
        self._sizes = list(columns.values())
        self.layout = Layout(len(self.features), {**columns, "hidden": cell.state_size})
        hidden = cell.initial_state(1).detach().cpu().numpy()
        self.arena = Arena(self.layout, self.layout.fresh(hidden=hidden), self.capacity, self.device)

    @property
    def steps(self) -> tuple[int, ...]:
        """Which steps ahead `Forecasts.ahead` holds."""
        return (1, *self.bundle.horizons)

    def score(self, series: Sequence[str], timestamp: Iterable[Any], value: Iterable[Any]) -> pl.DataFrame:
        """Score N readings of any series, in order, and learn from them; for notebooks and for embedding.

        `timestamp` is epoch ms, or datetimes of numpy, pandas or polars; `value` is (N,) or (N, F), None and NaN are
        missing values. Call it again as more readings come: the series go on where they stopped. Returns a table with
        the columns of the output record. Raises `DataError` for values that are infinite or larger than 1e30.
        """
        values = np.array(value, np.float64).reshape(len(series), len(self.features))
        times = _epoch_ms(timestamp)
        if bad := np.flatnonzero((np.abs(values) > MAX_ABS_VALUE).any(1)).tolist():
            raise DataError(f"reading {bad[0]}: {values[bad[0]].tolist()} is infinite or larger than {MAX_ABS_VALUE:g}")
        if _OWN not in self.arena.partitions:
            self.arena.open(_OWN)
        slots = self.arena.admit(_OWN, [name.encode() for name in series])
        offsets = np.arange(self._scored, self._scored + len(slots))
        self._scored += len(slots)
        return frame(
            series,
            times,
            offsets.astype(str).tolist(),
            self.step(Readings(slots, offsets, times, values)),
            features=self.features,
            steps=self.steps,
            model=self.bundle.name,
        )

    def step(self, readings: Readings) -> Forecasts:
        """Score N readings and learn from them, in order. The rows that changed are marked dirty.

        A reading that its row covers already gets the level COVERED, an older one LATE; neither changes anything.
        """
        n = len(readings)
        parts = [(i, self._wave(readings if len(i) == n else readings.take(i))) for i in waves(readings.slot)]
        forecasts = parts[0][1] if len(parts) == 1 else _join(parts, n) if parts else self._wave(readings)
        self.arena.stepped(readings.slot[forecasts.level < Level.LATE])
        return forecasts

    def _wave(self, readings: Readings) -> Forecasts:
        """Step distinct slots."""
        heads = self.arena.heads[readings.slot]
        y, last = readings.value, heads["last"]
        covered = heads["offset"] >= readings.offset
        late = readings.timestamp < heads["timestamp"]
        live = ~(covered | late)
        present = ~np.isnan(y) & live[:, None]
        pairs = np.flatnonzero(present)  # (N,) of the B F values
        of = pairs // y.shape[1]

        seen = heads["seen"]
        before = seen.ravel()[pairs]
        observed = features.observe(
            y.ravel()[pairs], readings.timestamp[of], last.ravel()[pairs], heads["timestamp"][of], before
        )
        columns = np.concatenate([observed, detector.youth(before)])
        out = self._step(readings.slot[of] * y.shape[1] + pairs % y.shape[1], columns)

        # From the present features back to all of them.
        judged = present & (seen >= self.detector.min_n_samples_seen)
        scores = np.zeros(y.shape)
        scores.ravel()[pairs] = out[0]
        steps = np.full((len(out) - 1, y.size), np.nan)
        steps[:, pairs] = out[1:]
        steps = steps.reshape(len(steps) // 3, 3, *y.shape)  # (2 + K, 3, B, F)
        steps[0] += last
        steps[1:] += y

        verdict = detector.judge(np.where(judged, scores, 0), heads["alarm"], self.detector.threshold)
        some, old_enough = present.any(1), judged.any(1)
        level = np.where(verdict.is_anomaly, _ANOMALY, _NORMAL)
        level[~old_enough] = Level.WARMUP
        level[~some] = Level.MISSING
        level[late] = Level.LATE
        level[covered] = Level.COVERED

        heads["seen"] = seen + present
        heads["last"] = np.where(present, y, last)
        heads["offset"] = np.where(live, readings.offset, heads["offset"])
        heads["timestamp"] = np.where(live, readings.timestamp, heads["timestamp"])
        heads["alarm"] = np.where(some, verdict.alarm, heads["alarm"])
        self.arena.heads[readings.slot] = heads
        nothing = np.where(old_enough, 0, np.nan)
        return Forecasts(
            y,
            steps[0, 0],
            steps[0, 1],
            steps[0, 2],
            steps[1:].transpose(2, 0, 1, 3),
            verdict.score + nothing,
            verdict.grade + nothing,
            verdict.is_anomaly,
            verdict.alert_score + nothing,
            verdict.alert,
            verdict.closes & some,
            level,
        )

    @torch.inference_mode()
    def _step(self, bodies: Ints, columns: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Step N `bodies`, all different, by what was observed: the columns of `features` and `detector`, one below the
        other. Returns (7 + 3 K, N): score, the forecast that had been made of this reading (median,
        lower, upper, relative to the value before it), and those of the next one and at each horizon (relative to it).
        """
        n = len(bodies)
        if n == 0:
            return np.empty((7 + 3 * len(self.bundle.horizons), 0), np.float32)
        if n < _LEAST:  # the same rows again: each is written several times with the same content
            again = np.arange(_LEAST) % n
            bodies, columns = bodies[again], columns[:, again]
        index, observed = torch.from_numpy(bodies).to(self.device), torch.from_numpy(columns).to(self.device)
        return self._apply(index, observed)[:, :n].cpu().numpy()

    def _apply(self, index: Tensor, observations: Tensor) -> Tensor:
        """The straight line."""
        observed = features.Observation.of(observations)
        age = detector.Youth(*torch.split(observations[features.OBSERVED :], 1))
        everything = self.arena.bodies.view(-1, self.layout.width)
        body = everything.index_select(0, index)  # (N, W)
        cell, columns = self._forecaster.cell, sum(self._sizes)
        old = body[:, :columns].T.contiguous()
        lags, averages, pending, *watched = torch.split(old, self._sizes)
        # score, against forecasts made before this reading
        known = features.Features(lags, averages)
        residuals = observed.dx - pending[2:4]
        evidence = detector.Evidence(residuals, features.pace(known, observed), observed.floor)
        score, creep, watch = detector.score(detector.Detector(*watched), evidence, age, self._limits)
        # features
        state = features.update(known, observed, self._constants)
        x, unit = features.inputs(state, observed)
        # step
        memory = slice(columns, columns + cell.state_size)
        output, hidden = cell.step(x.T, body[:, memory])
        # forecast
        ahead = self._forecaster.forecast(output, features.moves(state), unit).flatten(0, 1)  # (3 + 3 K, N)
        out = torch.cat([score, pending[2:3], pending[:2], ahead])
        waiting = pending[4:] - observed.dx
        farthest = ahead[3:4].clamp(waiting[-1:] - creep, waiting[-1:] + creep)
        new = torch.cat([*state, ahead[1:3], ahead[:1], waiting, farthest, *watch])
        body[:, :columns] = new.T
        body[:, memory] = hidden
        everything.index_copy_(0, index, body)
        return out


def _join(parts: Sequence[tuple[np.ndarray, Forecasts]], n: int) -> Forecasts:
    """The forecasts of the waves, back in the order of the readings."""
    columns = []
    for field in fields(Forecasts):
        first = getattr(parts[0][1], field.name)
        column = np.empty((n, *first.shape[1:]), first.dtype)
        for index, part in parts:
            column[index] = getattr(part, field.name)
        columns.append(column)
    return Forecasts(*columns)


def _names(features: int | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(features, int):
        return tuple(features)
    return ("value",) if features == 1 else tuple(f"value_{i + 1}" for i in range(features))


def _epoch_ms(timestamp: Iterable[Any]) -> Ints:
    times = np.asarray(timestamp)
    if times.dtype.kind == "M" or times.dtype == object:
        times = times.astype("datetime64[ms]")
    return times.astype(np.int64)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"model.device: {name} was asked for, but torch finds no CUDA device; use auto or cpu")
    return torch.device(name)
