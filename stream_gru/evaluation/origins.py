"""ETTh1 and M4 by the metrics of their authors, at the steps that the bundle forecasts.

The published figures are means over every step of a long horizon; those at a few steps are fair only among
themselves, so the baselines are given at the same steps, and seasonal naive over the whole horizon too, as a check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stream_gru.columns import Floats
from stream_gru.errors import DataError
from stream_gru.evaluation import references
from stream_gru.evaluation.cases import SuiteCase
from stream_gru.evaluation.forecasters import BASELINES, predict
from stream_gru.evaluation.panel import Panel, panel
from stream_gru.evaluation.streaming import Predicted
from stream_gru.evaluation.tables import Cell, FigureTable

OURS = "stream-gru"
ETT_TRAIN, ETT_TEST, ETT_END = 8640, 11520, 14400  # rows: 12 months, 4 more, and 4 that are scored
_SHOWN_STEPS, _MOST_SHOWN = (1, 12, 24, 36, 48), 6  # steps with a row
_ETT_HORIZON, _M4_HORIZON = 96, 48  # steps: the first of the usual ones on ETT; what M4 asks of hourly series
_DAY_ROWS = 24  # both are hourly


def ett_tables(cases: Sequence[SuiteCase], ours: Predicted) -> list[FigureTable]:
    """MSE and MAE of values standardised by the first 12 months, for targets in the last 4 of 20 months."""
    data = panel(cases)
    train = np.stack([case.value[:ETT_TRAIN, 0] for case in cases])
    spread = train.std(1)[data.series]
    if int(np.diff(data.first).min()) < ETT_END:
        raise DataError(f"ETTh1 has fewer rows than the {ETT_END:,} that the protocol takes")
    now = data.known()

    def errors(medians: npt.NDArray[np.float32], step: int) -> Floats:
        made_in_time = (data.row >= ETT_TEST - 1) & (data.row + step < ETT_END)
        error = (data.target(step) - now - medians) / spread
        kept: Floats = error[made_in_time & np.isfinite(error)]
        return kept

    rows: list[list[Cell]] = []
    for name, found in _all(data, ours).items():
        made = [errors(found.medians[:, k], step) for k, step in enumerate(found.steps)]
        for error, step in zip(made, found.steps, strict=True):
            if len(error) and (len(made) <= _MOST_SHOWN or step in _SHOWN_STEPS):
                rows.append([name, f"{step}", *_squared_and_absolute(error)])
        if len(made) > 1 and all(map(len, made)) and found.steps == tuple(range(1, len(made) + 1)):
            rows.append([name, f"mean of {_named(found.steps)}", *_squared_and_absolute(np.concatenate(made))])
    whole = f"mean of 1..{_ETT_HORIZON}"
    day = predict(BASELINES["seasonal naive"], data, range(1, _DAY_ROWS + 1)).medians  # and each day after it the same
    every = [errors(day[:, (step - 1) % _DAY_ROWS], step) for step in range(1, _ETT_HORIZON + 1)]
    rows.append(["seasonal naive", whole, *_squared_and_absolute(np.concatenate(every))])
    rows += [[f"{name}, published", whole, *figures] for name, figures in references.ETTH1.items()]
    return [FigureTable("ETTh1, months 17-20, from each row", ("forecaster", "steps ahead", "MSE", "MAE"), rows)]


def _named(steps: Sequence[int]) -> str:
    whole = len(steps) > 1 and list(steps) == list(range(1, len(steps) + 1))
    return f"1..{len(steps)}" if whole else ", ".join(map(str, steps))


def _squared_and_absolute(error: Floats) -> tuple[float, float]:
    return float(np.mean(error**2)), float(np.mean(np.abs(error)))


def m4_tables(cases: Sequence[SuiteCase], ours: Predicted) -> list[FigureTable]:
    """sMAPE, MASE and OWA from one origin, the end of each training part."""
    data = panel(cases)
    steps = [step for step in ours.steps if step <= _M4_HORIZON]
    reference = _naive2(cases)
    rows: list[list[Cell]] = []
    for name, found in _all(data, ours).items():
        made = {step: _at_origin(cases, data, found.medians[:, found.steps.index(step)]) for step in steps}
        usable = [step for step in steps if np.isfinite(made[step]).all()]
        if usable:
            rows.append([name, _named(usable), *_m4(cases, made, reference, usable)])
    horizon = range(1, _M4_HORIZON + 1)
    seasonal = predict(BASELINES["seasonal naive"], data, horizon)
    for name, made in (
        ("seasonal naive", {s: _at_origin(cases, data, seasonal.medians[:, s - 1]) for s in horizon}),
        ("Naive2", reference),
    ):
        rows.append([name, f"1..{_M4_HORIZON}", *_m4(cases, made, reference, list(horizon))])
    rows += [[f"{name}, published, 414", f"1..{_M4_HORIZON}", *of] for name, of in references.M4.items()]
    note = "forecasts from the end of the training part; OWA beside Naive2 at the same steps"
    return [
        FigureTable(
            f"M4 hourly, {len(cases)} series", ("forecaster", "steps ahead", "sMAPE", "MASE", "OWA"), rows, note
        )
    ]


def _all(data: Panel, ours: Predicted) -> dict[str, Predicted]:
    return {OURS: ours, **{name: predict(make, data, ours.steps) for name, make in BASELINES.items()}}


def _at_origin(cases: Sequence[SuiteCase], data: Panel, medians: npt.NDArray[np.float32]) -> Floats:
    """(S,) of `medians` (N,), those made at the end of each training part."""
    ends = data.first[:-1] + np.array([case.warm - 1 for case in cases])
    made: Floats = data.known()[ends] + medians[ends]
    return made


def _m4(
    cases: Sequence[SuiteCase], made: Mapping[int, Floats], reference: Mapping[int, Floats], steps: Sequence[int]
) -> tuple[float, float, float]:
    smape, mase = _errors(cases, made, steps)
    smape2, mase2 = _errors(cases, reference, steps)
    return smape, mase, (smape / smape2 + mase / mase2) / 2


def _errors(cases: Sequence[SuiteCase], made: Mapping[int, Floats], steps: Sequence[int]) -> tuple[float, float]:
    """Mean sMAPE in percent, and MASE by the seasonal naive errors within the training part."""
    train = [case.value[: case.warm, 0] for case in cases]
    scale = np.array([np.mean(np.abs(y[_DAY_ROWS:] - y[:-_DAY_ROWS])) for y in train])
    smape, mase = [], []
    for step in steps:
        target = np.array([case.value[case.warm - 1 + step, 0] for case in cases])
        error = np.abs(target - made[step])
        smape.append(200 * np.mean(error / (np.abs(target) + np.abs(made[step]))))
        mase.append(np.mean(error / scale))
    return float(np.mean(smape)), float(np.mean(mase))


def _naive2(cases: Sequence[SuiteCase]) -> dict[int, Floats]:
    """The last value with a season: classical multiplicative decomposition where the autocorrelation at the season is
    significant at 90%, as the competition's benchmark has it."""
    m = _DAY_ROWS
    made = {step: np.empty(len(cases)) for step in range(1, _M4_HORIZON + 1)}
    for i, case in enumerate(cases):
        y = case.value[: case.warm, 0]
        factors = _season(y, m) if _seasonal(y, m) else np.ones(m)
        n = len(y)
        for step, values in made.items():
            values[i] = y[-1] / factors[(n - 1) % m] * factors[(n - 1 + step) % m]
    return made


def _seasonal(y: Floats, m: int) -> bool:
    centred = y - y.mean()
    power = float(centred @ centred)
    if len(y) < 3 * m or power == 0:
        return False
    acf = np.array([centred[lag:] @ centred[:-lag] / power for lag in range(1, m + 1)])
    return bool(abs(acf[-1]) > 1.645 * np.sqrt((1 + 2 * np.sum(acf[:-1] ** 2)) / len(y)))


def _season(y: Floats, m: int) -> Floats:
    """(m,) multiplicative factors with mean 1, by a centred moving average."""
    weights = np.r_[0.5, np.ones(m - 1), 0.5] / m
    ratio = np.full(len(y), np.nan)
    ratio[m // 2 : len(y) - m // 2] = y[m // 2 : len(y) - m // 2] / np.convolve(y, weights, "valid")
    factors = np.array([np.nanmean(ratio[k::m]) for k in range(m)])
    seasonal: Floats = factors / factors.mean()
    return seasonal
