"""The tables of the one-step protocol: everything relative to repeating the last value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from stream_gru.columns import Bools, Floats
from stream_gru.evaluation.accuracy import SPANS, TRACKED, Accuracy, assess
from stream_gru.evaluation.cases import SuiteCase
from stream_gru.evaluation.forecasters import BASELINES, predict
from stream_gru.evaluation.panel import Panel, by_group, overall, panel
from stream_gru.evaluation.streaming import Predicted
from stream_gru.evaluation.tables import Cell, FigureTable

OURS = "stream-gru"
_LAST = "last value"
_FEWEST_READINGS = 100  # readings judged, for a series' coverage to say something
_SHOWN_STEPS, _MOST_SHOWN = (1, 2, 3, 6, 12, 18, 24, 36, 48), 10  # steps with a column
_FARTHEST_STEP = 24  # steps: 1 to 24 are averaged, those that there are


def tables(cases: Sequence[SuiteCase], ours: Predicted) -> list[FigureTable]:
    """`ours` are the engine's forecasts of the univariate `cases`."""
    data = panel(cases)
    judged = np.isfinite(data.y) & np.isfinite(data.last) & np.isfinite(ours.quantiles).all(1)
    moving = np.isfinite(assess_last(data, judged))
    found: dict[str, Accuracy] = {OURS: assess(data, ours, judged)}
    for name, make in BASELINES.items():
        found[name] = assess(data, predict(make, data, ours.steps), judged)
    everything = np.ones(len(data), np.bool_)
    held = data.half == 1
    left_out = len(data) - int(moving.sum())
    note = (
        f"{int(moving.sum())} series; {left_out} that never change are left out; divided by the mean error of the last "
        "value over the whole stream; geometric mean over series, then over data sets"
    )
    return [
        FigureTable(
            f"one step ahead, {int(judged.sum()):,} readings", _COLUMNS, list(_totals(data, found, held)), note
        ),
        _by_set(data, found, everything, "MASE by data set", [a.mase for a in found.values()]),
        _by_set(data, found, everything, "CRPS by data set", [a.crps for a in found.values()]),
        _by_points(data, found, everything),
        _by_step(data, found, everything),
        _coverage(data, found, judged, moving),
        _by_series(data, found),
    ]


_COLUMNS = ("forecaster", "MASE", "CRPS", "MASE, held-out half", "CRPS, held-out half")


def assess_last(data: Panel, judged: Bools) -> Floats:
    """(S,) mean move of each series, NaN where it never changes."""
    move = data.mean(np.abs(data.y - data.last), judged)
    return np.where(move > 0, move, np.nan)


def _totals(data: Panel, found: dict[str, Accuracy], held: Bools) -> Iterator[list[Cell]]:
    everything = np.ones(len(data), np.bool_)
    for name, accuracy in found.items():
        row: list[Cell] = [name]
        for chosen in (everything, held):
            row += [overall(data.groups, accuracy.mase, chosen), overall(data.groups, accuracy.crps, chosen)]
        yield row


def _by_set(
    data: Panel, found: dict[str, Accuracy], chosen: Bools, title: str, values: Sequence[Floats]
) -> FigureTable:
    sets = tuple(dict.fromkeys(data.groups))
    rows: list[list[Cell]] = []
    for name, ratios in zip(found, values, strict=True):
        means = by_group(data.groups, ratios, chosen)
        rows.append([name, *(means.get(group) for group in sets)])
    return FigureTable(title, ("forecaster", *sets), rows)


def _by_points(data: Panel, found: dict[str, Accuracy], chosen: Bools) -> FigureTable:
    rows: list[list[Cell]] = [
        [name, *(overall(data.groups, accuracy.by_points[span], chosen) for span in SPANS)]
        for name, accuracy in found.items()
    ]
    return FigureTable("MAE by points seen", ("forecaster", *(f"{a}-{b}" for a, b in SPANS)), rows)


def _by_step(data: Panel, found: dict[str, Accuracy], chosen: Bools) -> FigureTable:
    steps = tuple(found[OURS].by_step)
    near = [step for step in steps if step <= _FARTHEST_STEP]
    shown = [step for step in steps if len(steps) <= _MOST_SHOWN or step in _SHOWN_STEPS]
    rows: list[list[Cell]] = []
    for name, accuracy in found.items():
        at = {step: overall(data.groups, ratio, chosen) for step, ratio in accuracy.by_step.items()}
        known = [step in at for step in near]
        mean = float(np.exp(np.mean(np.log([at[step] for step in near])))) if all(known) else None
        rows.append([name, mean, *(at.get(step) for step in shown)])
    title = (
        "MAE so many steps ahead; first the geometric mean of "
        f"the {len(near)} steps up to {_FARTHEST_STEP} that there are"
    )
    return FigureTable(title, ("forecaster", f"1..{_FARTHEST_STEP}", *(f"{step}" for step in shown)), rows)


def _coverage(data: Panel, found: dict[str, Accuracy], judged: Bools, moving: Bools) -> FigureTable:
    enough = moving & (np.bincount(data.series, judged & (data.row >= TRACKED), len(data)) >= _FEWEST_READINGS)
    names = np.array(data.groups)
    rows: list[list[Cell]] = []
    for name, accuracy in found.items():
        if name == _LAST:
            continue
        sets = [accuracy.coverage[enough & (names == group)] for group in dict.fromkeys(data.groups)]
        sets = [part for part in sets if len(part)]
        within = [float(np.mean((part >= 0.87) & (part <= 0.93))) for part in sets]
        means = [float(part.mean()) for part in sets]
        every = accuracy.coverage[enough]
        inside = float(np.mean((every >= 0.87) & (every <= 0.93))) if len(every) else None
        rows.append([name, *((float(np.mean(x)) if x else None) for x in (means, within)), inside])
    columns = ("forecaster", "coverage", "series within .87-.93, mean of sets", "of all series")
    note = (
        f"from {TRACKED} points seen on, of series with {_FEWEST_READINGS} readings after that; "
        "baselines' intervals are tracked"
    )
    return FigureTable("coverage of the 90% interval", columns, rows, note)


def _by_series(data: Panel, found: dict[str, Accuracy]) -> FigureTable:
    rows: list[list[Cell]] = [
        [group, series, name, float(a.mase[i]), float(a.crps[i]), float(a.coverage[i])]
        for name, a in found.items()
        for i, (group, series) in enumerate(zip(data.groups, data.names, strict=True))
    ]
    return FigureTable(
        "one step ahead by series", ("set", "series", "forecaster", "MASE", "CRPS", "coverage"), rows, shown=False
    )
