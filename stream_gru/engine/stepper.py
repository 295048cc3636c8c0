"""The model side on arrays: readings with the slots of their series in, forecasts and scores out.

A batch passes in waves, so that each series comes at most once a wave. The host decides from the heads of the rows
which readings are applied; the device steps the bodies of the features that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from stream_gru import features, settings
from stream_gru.columns import Bools, Floats, Forecasts, Ints, Level, Readings, waves
from stream_gru.detection import alert, detector
from stream_gru.engine import device as bodies
from stream_gru.engine import gaps, late
from stream_gru.engine.arena import Arena
from stream_gru.engine.gates import Watch
from stream_gru.engine.row import Structured
from stream_gru.errors import BundleError, SettingsError
from stream_gru.models import bundle as bundles

Tape = Callable[[Ints, bodies.Columns], None]
"""Called with the bodies that are about to be stepped (n,), all different, and what is given of them (rows, n)."""

_ANOMALY, _NORMAL = np.int8(Level.ANOMALY), np.int8(Level.NORMAL)
LARGEST_STEP = 1000
MAX_ABS_VALUE = 1e30  # of a reading


@dataclass(slots=True)
class _Arrived:
    """B readings of distinct series, their heads as they were before them, and what becomes of their F values."""

    readings: Readings
    heads: Structured  # (B,)
    y: Floats  # (B, F)
    covered: Bools  # (B,) the row reflects it already
    behind: Bools  # (B,) older than the last one
    present: Bools  # (B, F) values that are applied
    filled: Bools  # (B, F) missing ones that are filled in

    @property
    def live(self) -> Bools:
        """(B,) those that change anything."""
        return ~(self.covered | self.behind)


@dataclass(slots=True)
class _Stepped:
    """What the device says of them, NaN where a feature was not stepped."""

    surprise: Floats  # (B, F)
    deviation: Floats  # (B, F)
    expected: Floats  # (B, F) of the reading, a horizon before
    made: Floats  # (Q, B, F) the quantiles that had been forecast of it
    spread: Floats  # (B, F) how far the members of an ensemble were apart on it
    now: Floats  # (B, F) the reading, or what was filled in for it
    ahead: Floats  # (K, 3, B, F) median, lower, upper at each step from here


class Stepper:
    """All series of one process: their rows in an arena, stepped by one set of weights."""

    def __init__(
        self,
        bundle: bundles.Bundle | Path | None = None,
        *,
        features: int | Sequence[str] = 1,
        capacity: int = 1_000_000,
        device: str = "auto",
        detector: settings.Detector | None = None,
        gaps: settings.Gaps | None = None,
        horizons: Sequence[int] = (),
    ) -> None:
        """`bundle` is a loaded one, a folder or a name in the package; none: the package's default. `features` is how
        many values a reading has, or their names; `capacity` the most series held at once. `horizons` are the
        farther steps to forecast instead of the bundle's own, if it can forecast any; the one that detection waits for
        is always among them.

        Raises `BundleError`, and `SettingsError` for the device or the horizons.
        """
        self.device = _device(device)
        self.features = _names(features)
        self.capacity = capacity
        self.detector = detector or settings.Detector()
        self.gaps = gaps or settings.Gaps()
        self.watch: Watch | None = None  # looks on at each step
        self.tape: Tape | None = None  # the same, before it, at what the device is given
        self._horizons = horizons
        self._take(_loaded(bundle))

    @classmethod
    def of(cls, settings: settings.Settings, *, features: Sequence[str] = (), capacity: int | None = None) -> Self:
        """The one that the settings ask for; `features` and `capacity` where they are not those of the settings."""
        return cls(
            settings.model.bundle,
            features=features or settings.input.values,
            capacity=capacity or settings.state.capacity,
            device=settings.model.device,
            detector=settings.detector,
            gaps=settings.gaps,
            horizons=settings.model.horizons,
        )

    def reload(self, bundle: bundles.Bundle | Path | None) -> None:
        """Take another model. Every row starts anew: what was resident is dropped, open partitions stay open.

        Raises as the constructor, and has changed nothing then.
        """
        partitions = self.arena.partitions
        self._take(_loaded(bundle))
        for partition in partitions:
            self.arena.open(partition)

    def require(self, bundle: bundles.Bundle) -> None:
        """Raises `BundleError` or `SettingsError` where `bundle` can't do what is asked of this one's."""
        scaled = len(bundle.description.scaling.loc)
        if scaled not in (0, 1, len(self.features)):
            raise BundleError(f"{bundle.name} scales {scaled} features; the readings have {len(self.features)}")
        _steps(self._horizons, bundle)

    def _take(self, bundle: bundles.Bundle) -> None:
        self.require(bundle)  # before anything has changed
        self.bundle = bundle
        self.steps = _steps(self._horizons, bundle)  # ahead: what `Forecasts.ahead` holds
        self.levels = bundle.forecaster.levels  # of `Forecasts.quantiles`
        self.limits = bundle.description.alarms or alert.DEFAULT
        imputes = self.gaps.policy == "impute"  # whatever the bundle does with null values
        self._guesses = imputes or bundle.description.missing == "forecast"
        self._fills = imputes or bundle.description.missing != "mask"
        self._most_filled = self.gaps.limit if imputes else gaps.NO_LIMIT * self._fills  # values in a row
        self.layout = bodies.layout(bundle, len(self.features))
        self.arena = Arena(self.layout, bodies.fresh(bundle, self.layout), self.capacity, self.device)
        self._bodies = self._device_of(self.arena.bodies.view(-1, self.layout.width), self.steps)

    @property
    def memory(self) -> int:
        """Bytes that the resident rows and the weights take on the device."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        weights = sum(weight.numel() * weight.element_size() for weight in self.bundle.forecaster.parameters())
        return len(self.arena) * self.layout.row_bytes + weights

    @property
    def covariates(self) -> tuple[str, ...]:
        """The numbers beside the features that the model wants with each reading."""
        return self.bundle.description.context.covariates

    def step(self, readings: Readings) -> Forecasts:
        """Score N readings and learn from them, in order. The rows that changed are marked dirty.

        A reading that its row covers already gets the level COVERED; an older one gets LATE and is held against the
        forecast of its time. Neither changes anything.
        """
        n = len(readings)
        parts = [(i, self._wave(readings if len(i) == n else readings.take(i))) for i in waves(readings.slot)]
        forecasts = parts[0][1] if len(parts) == 1 else Forecasts.join(parts, n) if parts else self._wave(readings)
        self.arena.stepped(readings.slot[forecasts.level < Level.LATE])
        return forecasts

    def ahead(self, before: torch.Tensor, given: bodies.Columns, farthest: int) -> tuple[list[int], Floats]:
        """The steps up to the `farthest` that the model can forecast, and N forecasts of them, (S, 3, N): median,
        lower, upper, relative to the last reading. Nothing is learned.

        `before` are bodies (N, W) as they were before that reading, `given` is what the device was given of it.
        """
        near = tuple(range(1, farthest + 1)) if self.bundle.forecaster.any_step else self.steps
        steps = tuple(sorted({*near, self.bundle.description.lead}))
        told = self._device_of(before.clone(), steps).step(np.arange(len(before)), given, self._guesses, None)
        wanted = [i for i, step in enumerate(steps) if step <= farthest]
        ahead = told.ahead.astype(np.float64).reshape(len(steps), 3, -1)
        return [steps[i] for i in wanted], ahead[wanted]

    def _device_of(self, rows: torch.Tensor, steps: Sequence[int]) -> bodies.Device:
        return bodies.Device(self.bundle, rows, steps, self.detector.direction)

    def _wave(self, readings: Readings) -> Forecasts:
        """Step readings of distinct series, and before them what the settings say about gaps."""
        heads = self.arena.take(readings.slot)
        covered, behind = heads["offset"] >= readings.offset, readings.timestamp < heads["timestamp"]
        interval, lacking = gaps.measure(self.gaps, readings.timestamp, heads, ~(covered | behind))
        imputed = np.zeros(len(readings), np.int64)
        if len(rows := np.flatnonzero(lacking)):
            some, before = readings.take(rows), heads[rows]
            if self.gaps.policy == "reset":
                self._reset(some.slot, before)
                interval[rows] = 0
            else:
                for lack, missed in gaps.between(some, before, lacking[rows], self.gaps.limit):
                    new = np.zeros(len(lack), np.bool_)
                    imputed[rows[lack]] += self._apply(missed, self.arena.take(missed.slot), new, new).imputed
            heads[rows] = self.arena.take(some.slot)
        heads["interval"] = interval
        forecasts = self._apply(readings, heads, covered, behind)
        forecasts.imputed += imputed
        late.judge(forecasts, readings, heads, self.arena.past, self.detector)
        return forecasts

    def _reset(self, slots: Ints, heads: Structured) -> None:
        self.arena.reset(slots, heads["offset"])
        self.arena.heads["alarm"][slots] = heads["alarm"]  # what was anomalous is still to be closed

    def _apply(self, readings: Readings, heads: Structured, covered: Bools, behind: Bools) -> Forecasts:
        """Admit readings of distinct series, step and score them, and write their heads."""
        arrived = self._admit(readings, heads, covered, behind)
        stepped = self._step(arrived)
        seen = heads["seen"]
        judged = arrived.present & (seen >= self.detector.min_n_samples_seen)
        verdict = alert.judge(
            alert.Measured(stepped.surprise, stepped.deviation, judged, heads["interval"], seen.max(axis=1)),
            *(heads["alarm"], self.limits, self.detector.sensitivity),
        )
        self._keep(arrived, stepped, verdict)
        return self._forecasts(arrived, stepped, verdict, np.logical_or.reduce(judged, axis=1))

    def _admit(self, readings: Readings, heads: Structured, covered: Bools, behind: Bools) -> _Arrived:
        """Which values are applied, and which missing ones are filled in."""
        live = ~(covered | behind)[:, None]
        y = readings.value[:, : len(self.features)]
        missing = np.isnan(y)
        present = ~missing & live
        filled = gaps.fill(heads, present, missing & live, self._most_filled)
        return _Arrived(readings, heads, y, covered, behind, present, filled)

    def _step(self, arrived: _Arrived) -> _Stepped:
        """Those features that are stepped through the device, and back to all of them."""
        heads, readings, y, filled = arrived.heads, arrived.readings, arrived.y, arrived.filled
        last = heads["last"]
        pairs = np.flatnonzero(arrived.present | filled)  # (N,) of the B F values
        of, feature = np.divmod(pairs, y.shape[1])
        fill, before = filled.ravel()[pairs], last.ravel()[pairs]
        arrival = features.Arrival(
            y=np.where(fill, before, y.ravel()[pairs]),
            timestamp=readings.timestamp[of],
            last=before,
            since=heads["since"].ravel()[pairs],
            seen=heads["seen"].ravel()[pairs],
            base=heads["base"].ravel()[pairs],
        )
        given = self._given(arrival, feature, readings.value[of, y.shape[1] :], fill)
        index = readings.slot[of] * y.shape[1] + feature
        if self.tape is not None:
            self.tape(index, given)
        told = self._bodies.step(index, given, self._guesses, self.watch)

        def back(columns: bodies.Columns) -> Floats:
            """(R, N) -> (R, B, F)"""
            if len(pairs) == y.size:
                return columns.astype(np.float64).reshape(len(columns), *y.shape)
            wide = np.full((len(columns), y.size), np.nan)
            wide[:, pairs] = columns
            return wide.reshape(len(columns), *y.shape)

        surprise, deviation = back(told.found)
        made = back(told.made) + last
        median = made[self.bundle.forecaster.band[0]]
        now = np.where(filled, median if self._guesses else last, y)
        ahead = back(told.ahead).reshape(len(self.steps), 3, *y.shape) + now
        spread = (
            back(np.where(arrival.seen > 0, told.spread, np.nan))[0] if len(told.spread) else np.full(y.shape, np.nan)
        )
        return _Stepped(surprise, deviation, back(told.waited)[0] + last, made, spread, now, ahead)

    def _given(self, arrival: features.Arrival, feature: Ints, covariates: Floats, filled: Bools) -> bodies.Columns:
        """What the device needs to know of N readings, see `device.Given`."""
        context, scaling = self.bundle.description.context, self.bundle.description.scaling
        parts = [features.observe(arrival, scaling.of(feature)), detector.youth(arrival.seen)]
        if context.size:
            parts.append(context.columns(arrival.timestamp, covariates))
        if self._fills:
            parts.append(filled[None].astype(np.float32))
        return np.concatenate(parts)

    def _keep(self, arrived: _Arrived, stepped: _Stepped, verdict: alert.Verdict) -> None:
        """Write the heads of the rows, and the forecasts that late readings will be held against."""
        heads, readings, live = arrived.heads, arrived.readings, arrived.live
        moved = arrived.present | arrived.filled
        first = moved & np.isnan(heads["base"])
        heads["seen"] += moved
        heads["last"] = np.where(moved, stepped.now, heads["last"])
        heads["base"] = np.where(first, stepped.now, heads["base"])
        heads["since"] = np.where(moved, readings.timestamp[:, None], heads["since"])
        heads["offset"] = np.where(live, readings.offset, heads["offset"])
        heads["timestamp"] = np.where(live, readings.timestamp, heads["timestamp"])
        heads["alarm"] = np.where(arrived.present.any(1), verdict.head, heads["alarm"])
        late.keep(self.arena.past, readings.slot, heads, moved, stepped.ahead[0])
        self.arena.put(readings.slot, heads)

    def _forecasts(self, arrived: _Arrived, stepped: _Stepped, verdict: alert.Verdict, old_enough: Bools) -> Forecasts:
        """What is said of the readings, those whose series are `old_enough` (B,) with a judgement."""
        some = arrived.present.any(1)
        level = np.where(verdict.is_anomaly, _ANOMALY, _NORMAL)
        level[~old_enough] = Level.WARMUP
        level[~some] = Level.MISSING
        level[arrived.behind] = Level.LATE
        level[arrived.covered] = Level.COVERED
        nothing = np.where(old_enough, 0, np.nan)
        yhat, lower, upper = (stepped.made[level] for level in self.bundle.forecaster.band)
        return Forecasts(
            y=arrived.y,
            yhat=yhat,
            lower=lower,
            upper=upper,
            spread=stepped.spread,
            ahead=stepped.ahead.transpose(2, 0, 1, 3),
            anomaly_score=verdict.score + nothing,
            anomaly_grade=verdict.grade + nothing,
            is_anomaly=verdict.is_anomaly,
            alert_score=verdict.alert_score + nothing,
            alert=verdict.alert,
            closes=verdict.closes & some,
            relevant_attribution=verdict.attribution,
            expected_values=np.where(verdict.is_anomaly[:, None], stepped.expected, np.nan),
            level=level,
            quantiles=stepped.made.transpose(1, 0, 2),
            imputed=np.logical_or.reduce(arrived.filled, axis=1).astype(np.int64),
        )


def _loaded(bundle: bundles.Bundle | Path | None) -> bundles.Bundle:
    return bundle if isinstance(bundle, bundles.Bundle) else bundles.load(bundle)


def _names(features: int | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(features, int):
        return tuple(features)
    return ("value",) if features == 1 else tuple(f"value_{i + 1}" for i in range(features))


def _steps(horizons: Sequence[int], bundle: bundles.Bundle) -> tuple[int, ...]:
    """Which steps are forecast: the next one, and the farther ones that are asked for or the bundle's own."""
    if not horizons:
        return 1, *bundle.horizons
    if not bundle.forecaster.any_step:
        own = ", ".join(map(str, bundle.horizons))
        raise SettingsError(f"model.horizons: {bundle.name} forecasts the steps 1, {own} only; leave the setting out")
    if min(horizons) < 2 or max(horizons) > LARGEST_STEP:
        raise SettingsError(f"model.horizons: steps between 2 and {LARGEST_STEP} beside the next one")
    return 1, *sorted({*horizons, bundle.description.lead})


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"model.device: {name} was asked for, but torch finds no CUDA device; use auto or cpu")
    return torch.device(name)
