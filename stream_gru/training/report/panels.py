"""Which charts a report has, and how to read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from bokeh.plotting import figure

from stream_gru.training.report import charts
from stream_gru.training.report.norms import Norms
from stream_gru.training.report.residuals import Residuals

if TYPE_CHECKING:  # it brings lightning, which a chart doesn't need
    from stream_gru.training.fit import Fitted

_EXAMPLES = (0.05, 0.35, 0.65, 0.95)  # of the series, in order of their error
_SEED = 0  # of the points that a scatter shows


class ChartPanel(NamedTuple):
    """One chart."""

    title: str
    note: str
    chart: figure
    wide: bool = False


class ReportSection(NamedTuple):
    """Charts under one heading."""

    title: str
    panels: list[ChartPanel]


def curves(fitted: Fitted, log: Norms | None, clip: float | None) -> list[ChartPanel]:
    """What went on during the fit."""
    checks = fitted.checks
    if not checks:
        return []
    panels = [
        ChartPanel(
            "Loss",
            "Both should fall and level off; a held-back loss that rises again is overfitting. The dashed "
            "line marks the weights that were kept.",
            charts.losses(checks, fitted.before.loss),
        ),
        ChartPanel(
            "Error on held-back data",
            "Mean absolute error divided by that of repeating the last value (dashed), for each step ahead.",
            charts.errors(checks, fitted.before),
        ),
        ChartPanel(
            "Gradient norm",
            "Of all parameters before clipping, log scale" + (f"; clipped at {clip:.3g} (dashed)." if clip else "."),
            charts.gradient_norm(checks, clip),
        ),
        ChartPanel(
            "Weight norm", "Of all parameters. It may grow at first and should level off.", charts.weight_norm(checks)
        ),
        ChartPanel("Learning rate", "As the schedule set it.", charts.learning_rate(checks)),
        ChartPanel("Speed", "Readings learned from a second, between two checks.", charts.readings(checks)),
    ]
    if log is not None:
        panels += [
            ChartPanel(
                "Gradient norm of each part",
                "Log scale. Parts whose gradient is thousands of times smaller than the heads' hardly learn. "
                "Click on a name to hide it.",
                charts.gradients(log),
            ),
            ChartPanel(
                "Weight norm of each part", "A part that keeps growing is worth more weight decay.", charts.weights(log)
            ),
        ]
    return panels


def held_back(left: Residuals) -> list[ChartPanel]:
    """How good and how honest the forecasts are."""
    return [
        ChartPanel(
            "Error by step ahead",
            "Against repeating the last value (dashed). Bars: geometric mean over the series; whiskers: quartiles.",
            charts.by_horizon(left),
        ),
        ChartPanel(
            "Error by readings seen",
            "One step ahead: how soon a new series is forecast well.",
            charts.by_age(left),
        ),
        ChartPanel(
            "Calibration of the quantiles",
            "Share of values below the 5%, 50% and 95% quantile. On the dashed line intervals can be taken literally.",
            charts.calibration(left),
        ),
        ChartPanel(
            "Where the values fall",
            "Share of values in each range over what it should be: 1 everywhere is calibrated; high ends mean "
            "intervals that are too narrow.",
            charts.ranges(left),
        ),
        ChartPanel(
            "Standardised residuals",
            "One step ahead, divided by the interval so that 90% should lie within ±1.64. Far ones are counted at the "
            "ends.",
            charts.histogram(left),
        ),
        ChartPanel(
            "Residual against forecast",
            "A mean far from zero is a bias where the forecast moves that far.",
            charts.against_forecast(left, np.random.default_rng(_SEED)),
        ),
        ChartPanel(
            "Autocorrelation of the residuals",
            "One step ahead, mean over the series. Beyond the dashed lines something of the past is left unused.",
            charts.autocorrelation(left),
            wide=True,
        ),
    ]


def examples(left: Residuals) -> list[ChartPanel]:
    """Windows from well to badly forecast ones."""
    panels = []
    for share, (ratio, series) in zip(_EXAMPLES, left.examples(_EXAMPLES), strict=False):
        chart = charts.example(left, series)
        if chart is not None:
            note = f"{share:.0%} of the windows are forecast better. One-step error {ratio:.2f} of the last value's."
            panels.append(ChartPanel(f"Window {series}", note, chart, wide=True))
    return panels
