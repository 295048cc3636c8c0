"""Univariate cases as one long column, and forecasts beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_gru.columns import DAY_MS, Bools, Floats, Ints
from stream_gru.evaluation.cases import SuiteCase, halves

_LONGEST_SEASON = 1440  # readings: a day of minutes; a longer season is left out, as it takes a long past


@dataclass(frozen=True, slots=True)
class Panel:
    """N readings of S series, one series after another."""

    names: tuple[str, ...]
    groups: tuple[str, ...]  # S names
    half: Ints  # (S,) 0 or 1
    first: Ints  # (S + 1,) where each series begins
    y: Floats  # (N,) NaN = missing
    last: Floats  # (N,) the value known before each reading, NaN before the first
    series: Ints  # (N,)
    row: Ints  # (N,) within the series
    season: Ints  # (S,) readings a day, 1 where they are not 2 to 1,440

    def __len__(self) -> int:
        return len(self.names)

    def target(self, step: int) -> Floats:
        """(N,) the value so many readings later, NaN past the end."""
        later = np.full_like(self.y, np.nan)
        later[: -step or None] = self.y[step:]
        ends = np.repeat(self.first[1:], np.diff(self.first))
        later[np.arange(len(self.y)) + step >= ends] = np.nan
        return later

    def known(self) -> Floats:
        """(N,) the value itself, or the last one where it is missing."""
        return np.where(np.isfinite(self.y), self.y, self.last)

    def mean(self, values: Floats, mask: Bools) -> Floats:
        """(S,) of `values` where `mask`; NaN where there are none."""
        count = np.bincount(self.series, mask, len(self))
        total = np.bincount(self.series, np.where(mask, values, 0.0), len(self))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def panel(cases: Sequence[SuiteCase]) -> Panel:
    """The univariate `cases` as a panel."""
    lengths = np.array([len(case) for case in cases])
    first = np.r_[0, np.cumsum(lengths)]
    y = np.concatenate([case.value[:, 0] for case in cases])
    row = np.arange(len(y)) - np.repeat(first[:-1], lengths)
    present = np.where(np.isfinite(y), np.arange(len(y)), -1)
    before = np.r_[-1, np.maximum.accumulate(present)[:-1]]
    begins = np.repeat(first[:-1], lengths)
    last = np.where(before >= begins, y[before], np.nan)
    season = [_season(case) for case in cases]
    return Panel(
        tuple(case.name for case in cases),
        tuple(case.group for case in cases),
        halves(cases),
        first,
        y,
        last,
        np.repeat(np.arange(len(cases)), lengths),
        row,
        np.array(season),
    )


def _season(case: SuiteCase) -> int:
    steps = np.diff(case.timestamp)
    usual = float(np.median(steps)) if len(steps) else 0.0
    a_day = round(DAY_MS / usual) if usual > 0 else 1
    return a_day if 2 <= a_day <= _LONGEST_SEASON else 1


def overall(groups: Sequence[str], values: Floats, chosen: Bools) -> float:
    """Geometric mean over the series of each data set, then over the sets; NaN counts nothing."""
    means = list(by_group(groups, values, chosen).values())
    return float(np.exp(np.mean(np.log(means)))) if means else float("nan")


def by_group(groups: Sequence[str], values: Floats, chosen: Bools) -> dict[str, float]:
    """Geometric mean over the series of each data set."""
    names: npt.NDArray[np.str_] = np.array(groups)
    usable = chosen & np.isfinite(values)
    return {
        group: float(np.exp(np.log(values[usable & (names == group)]).mean()))
        for group in dict.fromkeys(groups)
        if (usable & (names == group)).any()
    }
