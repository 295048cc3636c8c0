"""What a suite leaves in a folder: one JSON object, a CSV a table, and pictures of three of its series."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stream_gru.columns import Floats
from stream_gru.engine.stepper import Stepper
from stream_gru.evaluation.cases import SuiteCase
from stream_gru.evaluation.suites import SuiteReport
from stream_gru.history import backtest
from stream_gru.history.files import History

_MOST_PICTURES, _MOST_FEATURES, _MOST_ROWS = 3, 3, 5000  # of a suite, in a picture, and of a feature


def write(report: SuiteReport, folder: Path) -> list[Path]:
    """RESULT.json and a CSV for each table; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{report.suite}.json"]
    written[0].write_text(json.dumps(report.plain(), indent=1), "utf-8")
    for table in report.tables:
        written.append(folder / f"{report.suite}-{_slug(table.title)}.csv")
        with written[-1].open("w", newline="", encoding="utf-8") as text:
            writer = csv.writer(text)
            writer.writerow(table.columns)
            writer.writerows(table.rows)
    return written


def draw(suite: str, cases: Sequence[SuiteCase], bundle: Path | None, folder: Path) -> list[Path]:
    """Pictures of three series that someone recorded, value, band, flags and labels. Raises `DataError` where
    matplotlib is missing."""
    from stream_gru.history.plot import draw as picture

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for case in _chosen(cases):
        table = History([case.name] * len(case), case.timestamp, case.value)
        engine = Stepper(bundle, features=case.value.shape[1], capacity=1)
        (forecasts,) = backtest.score(engine, [table], lambda _: None)
        begin = max(min(case.windows[0][0] - _MOST_ROWS // 2 if case.windows else 0, len(case) - _MOST_ROWS), 0)
        part = slice(begin, begin + _MOST_ROWS)
        shown = replace(
            table,
            series=table.series[part],
            timestamp=case.timestamp[part],
            value=case.value[part],
            covariates=np.empty(0),
        )
        spans = [(int(case.timestamp[a]), int(case.timestamp[b])) for a, b in case.windows]
        target = folder / f"{suite}-{_slug(case.name)}.png"
        features = _telling(shown.value)
        told = forecasts.take(part)
        told = replace(told, **{name: getattr(told, name)[:, features] for name in ("y", "yhat", "lower", "upper")})
        names = [f"{i + 1}" for i in features]
        paths.append(picture(target, case.name, shown, told, names, spans=spans))
    return paths


def _telling(value: Floats) -> list[int]:
    """The few of F features that go farthest from their median, in units of their usual distance from it."""
    apart = np.abs(value - np.nanmedian(value, axis=0))
    unusual = np.nanmax(apart, axis=0) / (np.nanmean(apart, axis=0) + 1e-9)
    return sorted(np.argsort(-unusual, kind="stable")[:_MOST_FEATURES].tolist())


def _chosen(cases: Sequence[SuiteCase]) -> list[SuiteCase]:
    """Three of the recorded ones, those with labels first, spread over the list."""
    real = [case for case in cases if not case.name.startswith("artificial")] or list(cases)
    some = [case for case in real if case.windows]
    if len(some) < _MOST_PICTURES:
        some += [case for case in real if not case.windows][: _MOST_PICTURES - len(some)]
    at = np.unique(np.linspace(0, len(some) - 1, _MOST_PICTURES).round().astype(np.int64)).tolist()
    return [some[i] for i in at]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-")
