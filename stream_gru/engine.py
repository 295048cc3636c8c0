"""The model side, without Kafka or Redis: readings in, forecasts and scores out.

A batch passes in waves, so that each series comes at most once a wave. The host decides from the heads of the rows
which readings are applied; the device then steps the bodies of the features that are present: one gather, the straight
line score -> features -> step -> forecast, one scatter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from stream_gru import alert, detector, features, settings
from stream_gru.arena import Arena
from stream_gru.batch import Bools, Floats, Forecasts, Ints, Level, Readings, waves
from stream_gru.errors import BundleError, DataError, SettingsError
from stream_gru.frame import frame
from stream_gru.models import bundle as bundles
from stream_gru.row import Layout

if TYPE_CHECKING:
    from stream_gru.gates import Watch

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
        self.watch: Watch | None = None  # looks on at each step
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
        scaled = len(bundle.description.scaling.loc)
        if scaled not in (0, 1, len(self.features)):
            raise BundleError(f"{bundle.name} scales {scaled} features; the readings have {len(self.features)}")
        self.bundle = bundle
        self._forecaster = bundle.forecaster.to(self.device)
        self._constants = features.Constants.on(self.device)
        self._watched = detector.Constants.on(self.device, self.detector.direction)
        network, description = self._forecaster.network, bundle.description
        self.limits = description.alarms or alert.DEFAULT
        lead = 3 * (1 + description.horizons.index(description.lead))
        self._lead = slice(lead, lead + 1)  # of the medians: what detection waits for
        self._parts = [features.OBSERVED, features.OBSERVED + len(detector.Youth._fields)]  # of `_columns`
        self._fills = description.missing != "mask"
        columns = {**features.FIELDS, "pending": 3 + description.lead, **detector.FIELDS}
        if self._forecaster.size > 1:
            columns["spread"] = 1
        self._sizes = list(columns.values())
        self.layout = Layout(len(self.features), {**columns, "hidden": network.state_size})
        hidden = network.initial_state(1).detach().cpu().numpy()
        self.arena = Arena(self.layout, self.layout.fresh(hidden=hidden), self.capacity, self.device)

    @property
    def steps(self) -> tuple[int, ...]:
        """Which steps ahead `Forecasts.ahead` holds."""
        return (1, *self.bundle.horizons)

    @property
    def covariates(self) -> tuple[str, ...]:
        """The numbers beside the features that the model wants with each reading."""
        return self.bundle.description.context.covariates

    def score(
        self,
        series: Sequence[str],
        timestamp: Iterable[Any],
        value: Iterable[Any],
        covariates: Iterable[Any] | None = None,
    ) -> pl.DataFrame:
        """Score N readings of any series, in order, and learn from them; for notebooks and for embedding.

        `timestamp` is epoch ms, or datetimes of numpy, pandas or polars; `value` is (N,) or (N, F), None and NaN are
        missing values; `covariates` (N, C) are those that the model wants, if any, unknown ones None or NaN. Call it
        again as more readings come: the series go on where they stopped. Returns a table with the columns of the output
        record. Raises `DataError` for values that are infinite or larger than 1e30.
        """
        values = np.array(value, np.float64).reshape(len(series), len(self.features))
        more = np.full((len(series), len(self.covariates)), np.nan)
        if covariates is not None:
            more[:] = np.array(covariates, np.float64).reshape(more.shape)
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
            self.step(Readings(slots, offsets, times, np.concatenate([values, more], axis=1))),
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
        last, seen = heads["last"], heads["seen"]
        y, covariates = np.split(readings.value, [last.shape[1]], axis=1)
        covered = heads["offset"] >= readings.offset
        late = readings.timestamp < heads["timestamp"]
        live = ~(covered | late)
        missing = np.isnan(y)
        present = ~missing & live[:, None]
        filled = missing & live[:, None] & (seen > 0) if self._fills else np.zeros_like(present)
        pairs = np.flatnonzero(present | filled)  # (N,) of the B F values
        of, feature = np.divmod(pairs, y.shape[1])

        fill, before = filled.ravel()[pairs], last.ravel()[pairs]
        arrival = features.Arrival(
            np.where(fill, before, y.ravel()[pairs]),
            readings.timestamp[of],
            before,
            heads["since"].ravel()[pairs],
            seen.ravel()[pairs],
        )
        columns = self._columns(arrival, feature, covariates[of], fill)
        out = self._step(readings.slot[of] * y.shape[1] + feature, columns)

        # From the features that were stepped back to all of them.
        judged = present & (seen >= self.detector.min_n_samples_seen)
        surprise, deviation, expected = np.full((3, *y.shape), np.nan)
        for column, of_pairs in zip((surprise, deviation, expected), out, strict=False):
            column.ravel()[pairs] = of_pairs
        expected += last
        steps = np.full((3 * (2 + len(self.bundle.horizons)), y.size), np.nan)
        steps[:, pairs] = out[3 : len(steps) + 3]
        steps = steps.reshape(len(steps) // 3, 3, *y.shape)  # (2 + K, 3, B, F)
        steps[0] += last
        now = np.where(filled, steps[0, 0] if self.bundle.description.missing == "forecast" else last, y)
        steps[1:] += now
        spread = np.full(y.shape, np.nan)
        if self._forecaster.size > 1:
            spread.ravel()[pairs] = np.where(seen.ravel()[pairs] > 0, out[-1], np.nan)

        some, old_enough = present.any(1), judged.any(1)
        verdict = alert.judge(
            alert.Found(surprise, deviation, judged, readings.timestamp - heads["timestamp"], seen.max(axis=1)),
            *(heads["alarm"], self.limits, self.detector.sensitivity),
        )
        level = np.where(verdict.is_anomaly, _ANOMALY, _NORMAL)
        level[~old_enough] = Level.WARMUP
        level[~some] = Level.MISSING
        level[late] = Level.LATE
        level[covered] = Level.COVERED

        stepped = present | filled
        heads["seen"] = seen + stepped
        heads["last"] = np.where(stepped, now, last)
        heads["since"] = np.where(stepped, readings.timestamp[:, None], heads["since"])
        heads["offset"] = np.where(live, readings.offset, heads["offset"])
        heads["timestamp"] = np.where(live, readings.timestamp, heads["timestamp"])
        heads["alarm"] = np.where(some, verdict.head, heads["alarm"])
        self.arena.heads[readings.slot] = heads
        nothing = np.where(old_enough, 0, np.nan)
        return Forecasts(
            y,
            steps[0, 0],
            steps[0, 1],
            steps[0, 2],
            spread,
            steps[1:].transpose(2, 0, 1, 3),
            verdict.score + nothing,
            verdict.grade + nothing,
            verdict.is_anomaly,
            verdict.alert_score + nothing,
            verdict.alert,
            verdict.closes & some,
            verdict.attribution,
            np.where(verdict.is_anomaly[:, None], expected, np.nan),
            level,
        )

    def _columns(
        self, arrival: features.Arrival, feature: Ints, covariates: Floats, filled: Bools
    ) -> npt.NDArray[np.float32]:
        """What the device needs to know of N readings: observation, youth, context and whether the value was filled
        in, one below the other."""
        context, scaling = self.bundle.description.context, self.bundle.description.scaling
        parts = [features.observe(arrival, scaling.of(feature)), detector.youth(arrival.seen)]
        if context.size:
            parts.append(context.columns(arrival.timestamp, covariates))
        if self._fills:
            parts.append(filled[None].astype(np.float32))
        return np.concatenate(parts)

    @torch.inference_mode()
    def _step(self, bodies: Ints, columns: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Step N `bodies`, all different, by `_columns`. Returns (9 + 3 K, N): surprise and deviation; the median that
        detection had waited for, and the forecast made a step before (median, lower, upper), relative to the value
        before this one; forecasts of the next one and at each horizon, relative to it; for an ensemble one row more,
        the spread of the first.
        """
        n = len(bodies)
        if n == 0:
            return np.empty((9 + 3 * len(self.bundle.horizons), 0), np.float32)
        if n < _LEAST:  # the same rows again: each is written several times with the same content
            again = np.arange(_LEAST) % n
            bodies, columns = bodies[again], columns[:, again]
        index, observed = torch.from_numpy(bodies).to(self.device), torch.from_numpy(columns).to(self.device)
        return self._apply(index, observed, n)[:, :n].cpu().numpy()

    def _apply(self, index: Tensor, columns: Tensor, n: int) -> Tensor:
        """The straight line. All but the first `n` are there to fill up."""
        observations, youth, extras = torch.tensor_split(columns, self._parts)
        everything = self.arena.bodies.view(-1, self.layout.width)
        body = everything.index_select(0, index)  # (N, W)
        network, width = self._forecaster.network, sum(self._sizes)
        lags, averages, pending, *watched = torch.split(body[:, :width].T.contiguous(), self._sizes)
        if self._fills:
            filled, extras = extras[-1:] > 0, extras[:-1]
            guess = pending[2:3] if self.bundle.description.missing == "forecast" else torch.zeros_like(pending[2:3])
            observations = features.imputed(observations, filled, guess)
        observed = features.Observation.of(observations)
        # score, against forecasts made before this reading
        known, watch = features.Features(lags, averages), detector.Detector(*watched[: len(detector.FIELDS)])
        evidence = detector.Evidence(observed.dx - pending[3:4], observed.dx, observed.floor)
        age = detector.Youth(*torch.split(youth, 1))
        found, learned = detector.score(watch, evidence, age, self._watched)
        if self._fills:  # a value of our own is no evidence
            learned = detector.Detector(
                *(torch.where(filled, old, new) for old, new in zip(watch, learned, strict=True))
            )
        # features
        state = features.update(known, observed, self._constants)
        x, unit = features.inputs(state, observed, fixed=self.bundle.description.scaling.kind != "online")
        # step
        memory = slice(width, width + network.state_size)
        given = (torch.cat([x, extras]) if len(extras) else x).T
        if self.watch is not None:
            self.watch(network, index[:n], given[:n], body[:n, memory])
        output, hidden = network.step(given, body[:, memory])
        # forecast
        forecast, spread = self._forecaster.forecast(output, features.moves(state), unit)
        ahead = forecast.flatten(0, 1)  # (3 + 3 K, N)
        out = [found, pending[3:4], pending[2:3], pending[:2], ahead, *watched[len(detector.FIELDS) :]]
        waiting = pending[4:] - observed.dx
        new = [*state, ahead[1:3], ahead[:1], waiting, ahead[self._lead], *learned]
        if spread is not None:
            new.append(spread[:1])
        body[:, :width] = torch.cat(new).T
        body[:, memory] = hidden
        everything.index_copy_(0, index, body)
        return torch.cat(out)


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
