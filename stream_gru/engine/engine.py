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

from stream_gru import features, settings
from stream_gru.columns import Bools, Floats, Forecasts, Ints, Level, Readings, waves
from stream_gru.detection import alert, calibration, detector
from stream_gru.engine import gaps, late
from stream_gru.engine.arena import Arena
from stream_gru.engine.frame import frame
from stream_gru.engine.row import Layout
from stream_gru.errors import BundleError, DataError, SettingsError
from stream_gru.models import bundle as bundles

if TYPE_CHECKING:
    from stream_gru.engine.gates import Watch

# A product of fewer rows takes another path through the BLAS and rounds differently; small batches are filled up, so
# that a reading's result does not depend on its batch.
_LEAST = 16
_ANOMALY, _NORMAL = np.int8(Level.ANOMALY), np.int8(Level.NORMAL)
_OWN = 0  # the partition of the series that `score` is given
LARGEST_STEP = 1000
MAX_ABS_VALUE = 1e30  # of a reading


class Engine:
    """All series of one process: their rows in an arena, stepped by one set of weights."""

    def __init__(
        self,
        bundle: Path | bundles.Bundle | None = None,
        *,
        features: int | Sequence[str] = 1,
        capacity: int = 1_000_000,
        device: str = "auto",
        threads: int = 1,
        detector: settings.Detector | None = None,
        gaps: settings.Gaps | None = None,
        horizons: Sequence[int] = (),
    ) -> None:
        """`bundle` is a folder or what was loaded from one, none: the one in the package. `features` is how many values
        a reading has, or their names; `capacity` the most series held at once. `horizons` are the farther steps to
        forecast instead of the bundle's own, if it can forecast any; the one that detection waits for is always among
        them.

        Raises `BundleError`, and `SettingsError` for the device or the horizons.
        """
        self.device = _device(device)
        self.features = _names(features)
        self.capacity = capacity
        self.detector = detector or settings.Detector()
        self._asked = horizons
        self.gaps = gaps or settings.Gaps()
        self.watch: Watch | None = None  # looks on at each step
        self._scored = 0  # readings that `score` was given
        torch.set_num_threads(threads)
        self._take(bundle if isinstance(bundle, bundles.Bundle) else bundles.load(bundle))

    def reload(self, bundle: Path | bundles.Bundle | None) -> None:
        """Take another model. Every row starts anew: what was resident is dropped, open partitions stay open."""
        loaded = bundle if isinstance(bundle, bundles.Bundle) else bundles.load(bundle)
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

    def require(self, bundle: bundles.Bundle) -> None:
        """Raises `BundleError` or `SettingsError` where `bundle` can't do what is asked of this engine's."""
        scaled = len(bundle.description.scaling.loc)
        if scaled not in (0, 1, len(self.features)):
            raise BundleError(f"{bundle.name} scales {scaled} features; the readings have {len(self.features)}")
        _horizons(self._asked, bundle)

    def _take(self, bundle: bundles.Bundle) -> None:
        self.require(bundle)  # before anything has changed
        self._horizons = _horizons(self._asked, bundle)
        self.bundle = bundle
        self._ahead = torch.tensor(self.steps, dtype=torch.float32, device=self.device)[:, None]
        self._forecaster = bundle.forecaster.to(self.device)
        self._levels = torch.tensor(self._forecaster.levels, device=self.device)[:, None]
        self._watched = detector.Constants.on(self.device, self.detector.direction)
        network, description = self._forecaster.network, bundle.description
        self.limits = description.alarms or alert.DEFAULT
        lead = 3 * self._horizons.index(description.lead)
        self._lead = slice(lead, lead + 1)  # of the forecasts at horizons: the median that detection waits for
        self._parts = [features.OBSERVED, features.OBSERVED + len(detector.Youth._fields)]  # of `_columns`
        imputes = self.gaps.policy == "impute"  # whatever the bundle does with null values
        self._guesses = imputes or description.missing == "forecast"
        self._fills = imputes or description.missing != "mask"
        self._most = self.gaps.limit if imputes else gaps.NO_LIMIT * self._fills  # values in a row that are filled in
        levels = len(self._forecaster.levels)
        columns = {"features": self._forecaster.features.size, "made": levels, "tracked": levels}
        columns |= {"waiting": description.lead, **detector.FIELDS}
        if self._forecaster.size > 1:
            columns["spread"] = 1
        self._sizes = list(columns.values())
        fields = {**columns, "hidden": network.state_size}
        start: dict[str, npt.ArrayLike] = {"hidden": network.initial_state(1).cpu().numpy()}
        if self._forecaster.features.table:
            fields["table"], start["table"] = self._forecaster.features.table, np.nan
        self.layout = Layout(len(self.features), fields)
        self.arena = Arena(self.layout, self.layout.fresh(**start), self.capacity, self.device)

    @property
    def steps(self) -> tuple[int, ...]:
        """Which steps ahead `Forecasts.ahead` holds."""
        return (1, *self._horizons)

    @property
    def levels(self) -> tuple[float, ...]:
        """Of `Forecasts.quantiles`."""
        return self._forecaster.levels

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

        A reading that its row covers already gets the level COVERED; an older one gets LATE and is held against the
        forecast of its time. Neither changes anything.
        """
        n = len(readings)
        parts = [(i, self._wave(readings if len(i) == n else readings.take(i))) for i in waves(readings.slot)]
        forecasts = parts[0][1] if len(parts) == 1 else _join(parts, n) if parts else self._wave(readings)
        self.arena.stepped(readings.slot[forecasts.level < Level.LATE])
        return forecasts

    def _wave(self, readings: Readings) -> Forecasts:
        """Step distinct slots."""
        heads = self.arena.take(readings.slot)
        covered = heads["offset"] >= readings.offset
        behind = readings.timestamp < heads["timestamp"]
        live = ~(covered | behind)
        imputed = gaps.bridge(self.gaps, self.arena, readings, heads, live, self._wave)
        last, seen = heads["last"], heads["seen"]
        y, covariates = np.split(readings.value, [last.shape[1]], axis=1)
        missing = np.isnan(y)
        present = ~missing & live[:, None]
        filled = gaps.fill(heads, present, missing & live[:, None], self._most)
        pairs = np.flatnonzero(present | filled)  # (N,) of the B F values
        of, feature = np.divmod(pairs, y.shape[1])

        fill, before = filled.ravel()[pairs], last.ravel()[pairs]
        arrival = features.Arrival(
            np.where(fill, before, y.ravel()[pairs]),
            readings.timestamp[of],
            before,
            heads["since"].ravel()[pairs],
            seen.ravel()[pairs],
            heads["base"].ravel()[pairs],
        )
        columns = self._columns(arrival, feature, covariates[of], fill)
        out = self._step(readings.slot[of] * y.shape[1] + feature, columns)

        # From the features that were stepped back to all of them.
        judged = present & (seen >= self.detector.min_n_samples_seen)
        surprise, deviation, expected = np.full((3, *y.shape), np.nan)
        for column, of_pairs in zip((surprise, deviation, expected), out, strict=False):
            column.ravel()[pairs] = of_pairs
        expected += last
        levels, band = len(self._forecaster.levels), self._forecaster.band
        steps = np.full((levels + 3 * len(self.steps), y.size), np.nan)
        steps[:, pairs] = out[3 : len(steps) + 3]
        made = steps[:levels].reshape(levels, *y.shape) + last
        now = np.where(filled, made[band[0]] if self._guesses else last, y)
        ahead = steps[levels:].reshape(len(self.steps), 3, *y.shape) + now  # (1 + K, 3, B, F)
        spread = np.full(y.shape, np.nan)
        if self._forecaster.size > 1:
            spread.ravel()[pairs] = np.where(seen.ravel()[pairs] > 0, out[-1], np.nan)

        some, old_enough = present.any(1), judged.any(1)
        verdict = alert.judge(
            alert.Found(surprise, deviation, judged, heads["interval"], seen.max(axis=1)),
            *(heads["alarm"], self.limits, self.detector.sensitivity),
        )
        level = np.where(verdict.is_anomaly, _ANOMALY, _NORMAL)
        level[~old_enough] = Level.WARMUP
        level[~some] = Level.MISSING
        level[behind] = Level.LATE
        level[covered] = Level.COVERED

        stepped = present | filled
        heads["seen"] = seen + stepped
        heads["last"] = np.where(stepped, now, last)
        heads["base"] = np.where(stepped & np.isnan(heads["base"]), now, heads["base"])
        heads["since"] = np.where(stepped, readings.timestamp[:, None], heads["since"])
        heads["offset"] = np.where(live, readings.offset, heads["offset"])
        heads["timestamp"] = np.where(live, readings.timestamp, heads["timestamp"])
        heads["alarm"] = np.where(some, verdict.head, heads["alarm"])
        late.keep(self.arena.past, readings.slot, heads, stepped, ahead[0])
        self.arena.put(readings.slot, heads)
        nothing = np.where(old_enough, 0, np.nan)
        forecasts = Forecasts(
            y,
            made[band[0]],
            made[band[1]],
            made[band[2]],
            spread,
            ahead.transpose(2, 0, 1, 3),
            verdict.score + nothing,
            verdict.grade + nothing,
            verdict.is_anomaly,
            verdict.alert_score + nothing,
            verdict.alert,
            verdict.closes & some,
            verdict.attribution,
            np.where(verdict.is_anomaly[:, None], expected, np.nan),
            level,
            made.transpose(1, 0, 2),
            imputed + filled.any(1),
        )
        late.judge(forecasts, readings, heads, self.arena.past, self.detector)
        return forecasts

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
        """Step N `bodies`, all different, by `_columns`. Returns (6 + Q + 3 K, N): surprise and deviation; the median
        that detection had waited for, and the quantiles forecast a step before, relative to the value before this one;
        median, lower and upper of the next one and at each horizon, relative to it; for an ensemble one row more, the
        spread of the first.
        """
        n = len(bodies)
        if n == 0:
            return np.empty((3 + len(self._forecaster.levels) + 3 * len(self.steps), 0), np.float32)
        if n < _LEAST:  # the same rows again: each is written several times with the same content
            again = np.arange(_LEAST) % n
            bodies, columns = bodies[again], columns[:, again]
        index, observed = torch.from_numpy(bodies).to(self.device), torch.from_numpy(columns).to(self.device)
        return self._apply(index, observed, n)[:, :n].cpu().numpy()

    def _apply(self, index: Tensor, columns: Tensor, n: int) -> Tensor:
        """The straight line. All but the first `n` are there to fill up."""
        observations, youth, extras = torch.tensor_split(columns, self._parts)
        forecaster, scaling = self._forecaster, self.bundle.description.scaling
        width, memory = sum(self._sizes), forecaster.network.state_size
        everything = self.arena.bodies.view(-1, self.layout.width)
        fields, hidden = everything[:, :width], everything[:, width : width + memory]
        body, state = fields.index_select(0, index).T.contiguous(), hidden.index_select(0, index)
        known, made, tracked, waiting, *watched = torch.split(body, self._sizes)
        middle = slice(forecaster.band[0], forecaster.band[0] + 1)
        if self._fills:
            filled, extras = extras[-1:] > 0, extras[:-1]
            guess = made[middle] if self._guesses else torch.zeros_like(made[middle])
            observations = features.imputed(observations, filled, guess)
        observed = features.Observation.of(observations)
        # score, against forecasts made before this reading
        watch = detector.Detector(*watched[: len(detector.FIELDS)])
        waited = observed.rate * self.bundle.description.lead <= 1  # else there was no forecast yet
        evidence = detector.Evidence((observed.dx - waiting[:1]) * waited, observed.dx, observed.floor)
        age = detector.Youth(*torch.split(youth, 1))
        found, learned = detector.score(watch, evidence, age, self._watched)
        factors = calibration.track(tracked, made, observed.dx, observed.rate, self._levels)
        if self._fills:  # a value of our own is no evidence
            factors = torch.where(filled, tracked, factors)
            learned = detector.Detector(
                *(torch.where(filled, old, new) for old, new in zip(watch, learned, strict=True))
            )
        # features
        table = features.Table(everything.view(-1), index * self.layout.width + (width + memory))
        known, view = forecaster.features.advance(known, observed, table, self._ahead, fixed=scaling.kind != "online")
        # step
        given = (torch.cat([view.x, extras]) if len(extras) else view.x).T
        if self.watch is not None:
            self.watch(forecaster.network, index[:n], given[:n], state[:n])
        output, state = forecaster.network.step(given, state)
        # forecast
        quantiles, spread = forecaster.forecast(output, view, self._ahead)
        near = calibration.spread(quantiles[0], factors, quantiles[0, middle])
        farther = quantiles[1:, forecaster.band].flatten(0, 1)  # (3 K, N)
        out = [found, waiting[:1], made, near[forecaster.band], farther, *watched[len(detector.FIELDS) :]]
        new = [known, near, factors, waiting[1:] - observed.dx, farther[self._lead], *learned]
        if spread is not None:
            new.append(spread[:1])
        fields.index_copy_(0, index, torch.cat(new).T.contiguous())
        hidden.index_copy_(0, index, state)
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


def _horizons(asked: Sequence[int], bundle: bundles.Bundle) -> tuple[int, ...]:
    if not asked:
        return bundle.horizons
    if not bundle.forecaster.any_step:
        own = ", ".join(map(str, bundle.horizons))
        raise SettingsError(f"model.horizons: {bundle.name} forecasts the steps 1, {own} only; leave the setting out")
    if min(asked) < 2 or max(asked) > LARGEST_STEP:
        raise SettingsError(f"model.horizons: steps between 2 and {LARGEST_STEP} beside the next one")
    return tuple(sorted({*asked, bundle.description.lead}))


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
