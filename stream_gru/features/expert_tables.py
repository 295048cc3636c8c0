"""What `experts` keeps of a series and shows the network, a row a thing; widths, rates and places derive from it.

Rates of running averages are the least share that a new reading counts: an average of rate r forgets e times in about
1 / r readings. Where no other source is given, numbers were chosen by the errors of forecasts on one half of the series
of the evaluation's data sets (see `evaluation.forecasting`, whose tables show the other half as well).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from torch import Tensor

from stream_gru.columns import notes
from stream_gru.features.set import NetworkInput, StatePart, rows_of

PROFILE_HOURS = {"day": 24, "week": 168}
"""The profiles, in the order of the table at the row's end, and the hours in each."""
PROFILE_RATES = {"day": 0.3, "week": 0.5}
"""Profile -> what the mean of an hour that is over counts in it: a day comes seven times as often as a week."""


class Smoother(NamedTuple):
    """An exponential average of the value."""

    name: str
    rate: float
    why: str


SMOOTHERS = (
    Smoother("mean", 0.005, "the level over hundreds of readings: an anchor, and what the spread is measured from"),
    Smoother("quick", 0.2, "an anchor, and the near one of the two that the line goes through"),
    Smoother("slow", 0.05, "the far one; this and the next ones are candidates for the best smoother"),
    Smoother("tenth", 0.1, "a candidate, and a term of the regression"),
    Smoother("third", 0.35, "a candidate"),
    Smoother("half", 0.6, "a candidate"),
    Smoother("last", 0.85, "a candidate"),
)
CANDIDATES = slice(2, len(SMOOTHERS))
"""Those that the best one is chosen from."""


class Anchor(NamedTuple):
    """A cheap forecast of a value some steps ahead."""

    name: str
    what: str


ANCHORS = (
    Anchor("last", "the last value"),
    Anchor("mean", "the slowest smoother"),
    Anchor("quick", "a quick smoother"),
    Anchor("trend", "the last value and the mean difference, which fades with each step"),
    Anchor("day", "the profile of the day at that time"),
    Anchor("week", "the profile of the week at that time"),
    Anchor("day's change", "the last value and what the profile of the day moves until then"),
    Anchor("week's change", "the same by the profile of the week"),
    Anchor("day, offset", "the profile of the day, moved to where the series has been beside it lately"),
    Anchor("week, offset", "the same of the week"),
    Anchor("line", "a line through two smoothers, drawn on (Brown 1959)"),
    Anchor("regression", "recursive least squares over some of the others (Haykin 2002)"),
    Anchor("best smoother", "of the candidates the one with the least error"),
)

TERMS = {"lags": 3, "mean": 1, "tenth": 1, "day": 1, "changes": 2}
"""What the regression goes by, and how many numbers each: the last differences, two smoothers, the anchor of the day,
and the changes of day and week; all as differences to the last value."""
TERM_COUNT = sum(TERMS.values())

_ERROR_RATE = 0.03


class ExpertState(NamedTuple):
    """What is known of N series, (k, N) each."""

    levels: Annotated[
        Tensor, StatePart("the smoothers, relative to the last value", len(SMOOTHERS), tuple(s.rate for s in SMOOTHERS))
    ]
    bounds: Annotated[Tensor, StatePart("decaying minimum and maximum, relative to the last value", 2)]
    slot: Annotated[Tensor, StatePart("mean of the readings of this hour, relative to the last value")]
    trend: Annotated[Tensor, StatePart("mean difference", 1, (0.15,))]
    errors: Annotated[
        Tensor, StatePart("mean size of each anchor's error", len(ANCHORS), (_ERROR_RATE,) * len(ANCHORS))
    ]
    smoother_errors: Annotated[Tensor, StatePart("the same of each candidate", 5, (_ERROR_RATE,) * 5)]
    spread: Annotated[Tensor, StatePart("mean distance to the slowest smoother", 1, (0.005,))]
    fast: Annotated[Tensor, StatePart("mean size of the differences, of late", 1, (0.15,))]
    slow: Annotated[
        Tensor, StatePart("the same over a longer time: the unit of most that the network sees", 1, (0.01,))
    ]
    unchanged: Annotated[Tensor, StatePart("share of the readings that equal the one before", 1, (0.05,))]
    interval: Annotated[Tensor, StatePart("usual gap between readings: half the logarithm of its seconds", 1, (0.05,))]
    phase: Annotated[Tensor, StatePart("mean place of the readings within their hour, in hours", 1, (0.02,))]
    offsets: Annotated[Tensor, StatePart("mean distance from the profiles of day and week", 2, (0.3, 0.3))]
    hour: Annotated[Tensor, StatePart("the hour of the week that `slot` is of")]
    fill: Annotated[Tensor, StatePart("how many readings `slot` is the mean of")]
    lags: Annotated[Tensor, StatePart("the last differences, the latest first", 3)]
    forecasts: Annotated[Tensor, StatePart("of each anchor but the first, for the next reading", len(ANCHORS) - 1)]
    theta: Annotated[Tensor, StatePart("coefficients of the regression", TERM_COUNT)]
    covariance: Annotated[
        Tensor,
        StatePart(
            "a triangle of their covariance, less the one before any reading", TERM_COUNT * (TERM_COUNT + 1) // 2
        ),
    ]


PARTS = notes(ExpertState, StatePart)
AVERAGES = {name: part for name, part in PARTS.items() if part.rates}

INPUTS = (
    NetworkInput("moves", len(ANCHORS) - 1, "asinh", "each anchor but the first, for the next reading"),
    NetworkInput("lags", 3, "asinh", "the last differences"),
    NetworkInput("errors", len(ANCHORS), "log", "mean size of each anchor's error"),
    NetworkInput("favourite", 1, "asinh", "the anchor with the least error"),
    NetworkInput("innovation", 1, "asinh", "how wrong the favourite was at this reading"),
    NetworkInput("y", 1, "asinh", "the value itself"),
    NetworkInput("offsets", 2, "asinh", "mean distance from the profiles"),
    NetworkInput("unit", 1, "log", "the least of the errors"),
    NetworkInput("fast", 1, "log", "mean size of the differences, of late"),
    NetworkInput("spread", 1, "log", "mean distance to the slowest smoother"),
    NetworkInput("unchanged", 1, "plain", "share of the readings that equal the one before"),
    NetworkInput("height", 1, "plain", "where the value lies between its minimum and maximum, 0 to 1"),
    NetworkInput("interval", 1, "plain", "half the logarithm of the usual seconds between readings"),
    NetworkInput("log_gap", 1, "plain", "the same of the last gap"),
    NetworkInput("log_seen", 1, "plain", "logarithm of the readings seen, up to about a window of the training"),
    NetworkInput("cosine", 1, "plain", "of the time of the day, UTC"),
    NetworkInput("sine", 1, "plain", "the same"),
)
"""In the order of the network's inputs. ``asinh`` and ``log`` are of the quantity in mean differences."""


def level(name: str) -> slice:
    """Where a smoother stands among all."""
    return rows_of([(row.name, 1) for row in SMOOTHERS], name)


def anchor(name: str) -> slice:
    """Where an anchor stands among all."""
    return rows_of([(row.name, 1) for row in ANCHORS], name)


def move(name: str) -> slice:
    """Where an anchor stands among all but the first, whose move is 0."""
    return rows_of([(row.name, 1) for row in ANCHORS[1:]], name)
