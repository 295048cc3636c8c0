"""One suite from its data to its tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_gru.errors import DataError
from stream_gru.evaluation import detection, forecasting, origins, ranking, readers, streaming
from stream_gru.evaluation.cases import SuiteCase
from stream_gru.evaluation.judges import BASELINES
from stream_gru.evaluation.streaming import Tell
from stream_gru.evaluation.suite import Suite
from stream_gru.evaluation.tables import FigureTable
from stream_gru.models import bundle as bundles

_FORECASTING = {
    Suite.ett: origins.ett_tables,
    Suite.m4: origins.m4_tables,
    Suite.one_step: forecasting.tables,
}
_FARTHEST = {Suite.ett: 48, Suite.m4: 48, Suite.one_step: 24}  # step, of bundles that can forecast any


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """What became of a suite."""

    suite: str
    model: str
    series: int
    readings: int
    engine_s: float  # of the engine alone
    seconds: float
    tables: list[FigureTable]

    def plain(self) -> dict[str, Any]:
        """For JSON; tables of single cases too."""
        return {
            "suite": self.suite,
            "model": self.model,
            "series": self.series,
            "readings": self.readings,
            "engine_s": round(self.engine_s, 1),
            "seconds": round(self.seconds, 1),
            "tables": [table.plain() for table in self.tables],
        }


def cases(suite: Suite, data: Path, limit: int | None = None) -> list[SuiteCase]:
    """Its series. Raises `DataError` naming what `data` lacks."""
    if not data.is_dir():
        raise DataError(f"there is no folder {data}")
    if limit is not None and suite in (Suite.ett, Suite.m4):
        raise DataError(f"{suite.value} is scored at rows that --limit would leave out")
    return [case.head(limit) for case in readers.READERS[suite.value](data)]


def values(found: Sequence[SuiteCase]) -> int:
    """What progress counts up to."""
    return sum(case.value.size for case in found)


def run(
    suite: Suite, found: Sequence[SuiteCase], data: Path, bundle: Path | None, *, threshold: float | None, tell: Tell
) -> SuiteReport:
    """Step `found` through the engine and score what it says. Raises `BundleError`, and `DataError` for what lacks."""
    began = time.perf_counter()
    model = bundles.load(bundle).name
    if suite in _FORECASTING:
        if threshold is not None:
            raise DataError(f"{suite.value} forecasts: no threshold applies")
        predicted = streaming.predict(bundle, found, tell, _FARTHEST[suite])
        stepped = time.perf_counter()
        tables = _FORECASTING[suite](found, predicted)
    else:
        if suite not in (Suite.nab, Suite.skab):
            ranking.require()  # rather than after some minutes
        judged = streaming.judge(bundle, found, tell)
        stepped = time.perf_counter()
        baselines = {name: [judge(case) for case in found] for name, judge in BASELINES.items()}
        if suite is Suite.nab:
            tables = detection.nab_tables(found, judged, baselines, threshold, data)
        elif suite is Suite.skab:
            tables = detection.skab_tables(found, judged, baselines, threshold)
        else:
            tables = detection.ranking_tables(suite.value, found, judged, baselines, threshold)
    end = time.perf_counter()
    return SuiteReport(suite.value, model, len(found), values(found), stepped - began, end - began, tables)
