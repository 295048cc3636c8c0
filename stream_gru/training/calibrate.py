"""Thresholds by expected false alarms: the engine over made-up series in which all is well.

A series counts from its 1,000th reading on; a younger one, whose records are few, gives several times as many alerts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stream_gru import settings
from stream_gru.columns import DAY_MS, Floats, Ints, Readings
from stream_gru.detection.alert import SLOWEST_MS, Limits
from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle as bundles
from stream_gru.training import clean
from stream_gru.training.fleet import Fleet

ESTABLISHED_READINGS = 1000  # readings
SENSITIVITIES = (0.01, 0.03, 0.1, 0.3, 1.0)  # that are checked
_RATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)  # alerts a reading
_SHARES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)  # of the readings
_FEWEST_EVENTS = 20  # events from which on a rate is known
_UNREACHABLE = 1e30  # a threshold that nothing reaches, and that what is divided by it survives
_STEP_MS, _START_MS = 60_000, 1_700_000_000_000  # of the made-up fleet: a reading a minute, from November 2023


@dataclass(frozen=True)
class CalibrationPlan:
    """How much is run: half of the series vary in everything, half are those of the simulator."""

    series: int = 1000
    readings: int = 5000
    seed: int = 0


@dataclass(frozen=True)
class SensitivityCheck:
    """One sensitivity on series that the thresholds were not made with."""

    sensitivity: float
    asked: float  # alerts
    got: int
    share: float  # of the readings that are called anomalous


class _JudgedStep(NamedTuple):
    """Of one reading of each series."""

    alert_score: Floats  # (S,)
    score: Floats
    days: float  # since the reading before, all series together, none more than `SLOWEST_MS`


def measure(bundle: Path | None, plan: CalibrationPlan) -> Limits:
    """The thresholds for a bundle, or the package's own. Raises `BundleError`."""
    unlimited = Limits((1e-1, 1e-9), (_UNREACHABLE, _UNREACHABLE), (1e-1, 1e-9), (1.0, 1.0))
    said = list(_run(bundle, plan, unlimited, settings.Detector()))
    surprise = np.concatenate([one.alert_score for one in said]) * _UNREACHABLE
    deviation = np.concatenate([one.score for one in said])
    return Limits(*_thresholds(surprise, _RATES), *_thresholds(deviation, _SHARES))


def check(bundle: Path | None, limits: Limits, plan: CalibrationPlan, sensitivity: float) -> SensitivityCheck:
    """What the engine says of the series of `plan`, which the thresholds should not have been made with."""
    said = list(_run(bundle, plan, limits, settings.Detector(sensitivity=sensitivity)))
    alerts = sum(int(np.count_nonzero(one.alert_score > 1)) for one in said)
    flags = sum(int(np.count_nonzero(one.score > 1)) for one in said)
    return SensitivityCheck(
        sensitivity, sensitivity * sum(one.days for one in said), alerts, flags / (len(said) * plan.series)
    )


def write(folder: Path, limits: Limits) -> bundles.Bundle:
    """Put the thresholds into a bundle. Raises `BundleError`."""
    loaded = bundles.load(folder)
    return bundles.save(folder, loaded.description.model_copy(update={"alarms": limits}), loaded.forecaster)


def _run(
    bundle: Path | None, plan: CalibrationPlan, limits: Limits, detector: settings.Detector
) -> Iterator[_JudgedStep]:
    """Step the series side by side, and tell of the readings of established ones."""
    timestamp, value = _series(plan)
    engine = Stepper(bundle, capacity=plan.series, detector=detector)
    engine.limits = limits
    engine.arena.open(0)
    slots = engine.arena.admit(0, [b"%d" % i for i in range(plan.series)])
    for t in range(plan.readings):
        offset = np.full(plan.series, t)
        out = engine.step(Readings(slots, offset, timestamp[:, t], value[:, t, None]))
        if t >= ESTABLISHED_READINGS:
            interval = np.minimum(timestamp[:, t] - timestamp[:, t - 1], SLOWEST_MS)
            days = float(interval.sum()) / DAY_MS
            yield _JudgedStep(out.alert_score, out.anomaly_score, days)


def _series(plan: CalibrationPlan) -> tuple[Ints, Floats]:
    """Epoch ms and values, (S, T)."""
    half = plan.series // 2
    timestamp, value = clean.fleet(plan.series - half, plan.readings, plan.seed)
    simulated = Fleet(half, _STEP_MS, _START_MS, plan.seed).ticks(plan.readings)
    columns = (column.reshape(plan.readings, half).T for column in (simulated.timestamp, simulated.value))
    return tuple(np.concatenate(pair) for pair in zip((timestamp, value), columns, strict=True))  # type: ignore[return-value]


def _thresholds(scores: Floats, rates: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The rates that so many scores can tell of, and the score, above 0, that is exceeded at each."""
    falling = np.sort(scores)[::-1]
    pairs = [
        (rate, float(f"{falling[int(rate * len(scores))]:.4g}"))
        for rate in rates
        if rate * len(scores) >= _FEWEST_EVENTS
    ]
    known, thresholds = zip(*((rate, threshold) for rate, threshold in pairs if threshold > 0), strict=True)
    return known, thresholds
