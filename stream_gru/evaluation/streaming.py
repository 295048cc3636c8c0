"""Cases through `Stepper.step`, all side by side, reading by reading, and what of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream_gru.columns import Bools, Floats, Forecasts, Ints, Readings
from stream_gru.engine.stepper import Stepper
from stream_gru.evaluation.cases import SuiteCase
from stream_gru.evaluation.panel import panel
from stream_gru.models import bundle as bundles

_PORTION_VALUES = 50_000  # values stepped between two reports of progress

Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the detector said of the T readings of a case."""

    score: Floats  # anomaly_score, 0 while there is none
    flag: Bools
    alert_score: Floats
    alert: Bools


@dataclass(frozen=True, slots=True)
class Predicted:
    """Forecasts for the readings of univariate cases, one case after another, N in all.

    In single precision, and therefore relative to the value known last: a counter of billions may move by one.
    """

    levels: tuple[float, ...]
    quantiles: npt.NDArray[np.float32]  # (N, L) one step ahead, of this very reading, from the value before it
    steps: tuple[int, ...]
    medians: npt.NDArray[np.float32]  # (N, K) of so many steps later, from this reading, or the last one before it


def portions(engine: Stepper, cases: Sequence[SuiteCase], handle: int = 0) -> Iterator[tuple[Ints, Forecasts]]:
    """Step all readings of `cases`, the first ones of all before the second ones.

    Yields which readings, as places in the cases one after another, and what the engine says of them.
    """
    engine.arena.open(handle)
    slots = engine.arena.admit(handle, [f"{i}".encode() for i in range(len(cases))])
    lengths = [len(case) for case in cases]
    row = np.concatenate([np.arange(n) for n in lengths])
    slot = np.repeat(slots, lengths)
    timestamp = np.concatenate([case.timestamp for case in cases])
    value = np.concatenate([case.value for case in cases])
    order = np.argsort(row, kind="stable")
    size = max(_PORTION_VALUES // value.shape[1], 1)
    for begin in range(0, len(order), size):
        here = order[begin : begin + size]
        yield here, engine.step(Readings(slot[here], row[here], timestamp[here], value[here]))


def judge(bundle: Path | None, cases: Sequence[SuiteCase], tell: Tell) -> list[Judged]:
    """The detector's word on each case, in their order. Progress is told in values. Raises `BundleError`."""
    out: dict[int, Judged] = {}
    for features in sorted({case.value.shape[1] for case in cases}):
        index = [i for i, case in enumerate(cases) if case.value.shape[1] == features]
        alike = [cases[i] for i in index]
        engine = Stepper(bundle, features=features, capacity=len(alike))
        total = sum(map(len, alike))
        numbers, flags = np.zeros((2, total)), np.zeros((2, total), np.bool_)
        for here, forecasts in portions(engine, alike):
            numbers[:, here] = np.nan_to_num([forecasts.anomaly_score, forecasts.alert_score])
            flags[:, here] = forecasts.is_anomaly, forecasts.alert
            tell(len(here) * features)
        first = 0
        for i, case in zip(index, alike, strict=True):
            part = slice(first, first + len(case))
            first += len(case)
            out[i] = Judged(numbers[0, part], flags[0, part], numbers[1, part], flags[1, part])
    return [out[i] for i in range(len(cases))]


def predict(bundle: Path | None, cases: Sequence[SuiteCase], tell: Tell, farthest: int = 0) -> Predicted:
    """The engine's forecasts of univariate cases: of every step up to `farthest`, if the bundle can forecast any, else
    of its own. Raises `BundleError`."""
    free = bundles.load(bundle).forecaster.any_step
    engine = Stepper(bundle, features=1, capacity=len(cases), horizons=range(2, farthest + 1) if free else ())
    steps, total, levels = engine.steps, sum(map(len, cases)), engine.levels
    data = panel(cases)
    known = data.known()
    quantiles, medians = (np.empty((total, width), np.float32) for width in (len(levels), len(steps)))
    for here, forecasts in portions(engine, cases):
        quantiles[here] = forecasts.quantiles[:, :, 0] - data.last[here, None]
        medians[here] = forecasts.ahead[:, :, 0, 0] - known[here, None]
        tell(len(here))
    return Predicted(levels, quantiles, steps, medians)
