"""Charts of a fit for its report: curves over the steps, and how the forecasts do on held-back data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool, NumeralTickFormatter, PrintfTickFormatter, Range1d
from bokeh.models.annotations.geometry import Span, Whisker
from bokeh.models.annotations.legends import Legend
from bokeh.plotting import figure

from stream_gru.columns import Floats
from stream_gru.training.objective import Quality
from stream_gru.training.report.findings.evidence import speed
from stream_gru.training.report.norms import Norms
from stream_gru.training.report.residuals import LAGS, Residuals

if TYPE_CHECKING:
    from stream_gru.training.fit import FitCheck

# Okabe and Ito (2008): told apart by people with any kind of colour vision
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, "#000000")
_HEADS = "heads"  # their curves are dashed, in the colours of their members
_GREY = "#777777"
_DOTTED_CHECKS = 40  # checks that are drawn as points on the curve
_HEIGHT_PIXELS = 280  # pixels
_LEGEND_ROW_PIXELS = 24  # of a row of the legend
_LEGEND_ROW_NAMES = 4  # in it
_SCATTER_POINTS = 3000  # in a scatter: more make the page heavy and the picture no clearer
_SHOWN_READINGS = 160  # readings of an example
_AXIS_DEVIATIONS = 6.0  # deviations, the end of the axis


def _figure(x: str, y: str, *, log: bool = False, log_x: bool = False, rows: int = 1) -> figure:
    p = figure(
        height=_HEIGHT_PIXELS + _LEGEND_ROW_PIXELS * (rows - 1),
        min_border_left=64,
        min_border_right=12,
        sizing_mode="stretch_width",
        x_axis_label=x,
        y_axis_label=y,
        x_axis_type="log" if log_x else "linear",
        y_axis_type="log" if log else "linear",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_scroll=None,
    )
    p.toolbar.logo = None
    p.toolbar.autohide = True
    p.outline_line_color = None
    p.grid.grid_line_color = "#e8e8e8"
    for axis in p.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "12px"
        axis.major_label_text_font_size = "11px"
        axis.axis_line_color = axis.major_tick_line_color = _GREY
        axis.minor_tick_line_color = None
    legend = Legend(orientation="horizontal", click_policy="hide", border_line_color=None, margin=0)
    legend.label_text_font_size = "12px"
    legend.ncols, legend.spacing, legend.glyph_width = _LEGEND_ROW_NAMES, 6, 18
    legend.label_standoff = 4
    p.add_layout(legend, "above")
    return p


def _lines(x_label: str, y_label: str, x: Floats, curves: Mapping[str, Floats], *, log: bool = False) -> figure:
    """Curves over the steps; one alone needs no legend."""
    p = _figure(x_label, y_label, log=log, rows=-(-len(curves) // _LEGEND_ROW_NAMES))
    p.xaxis.formatter = NumeralTickFormatter(format="0,0")
    p.x_range.start = -0.01 * float(x[-1])  # type: ignore[attr-defined] # a DataRange1d, which figure() made
    for name, y in curves.items():
        shown = np.where(y > 0, y, np.nan) if log else y
        source = ColumnDataSource({"x": x, "y": shown})
        alike = [other for other in curves if other.startswith(_HEADS) == name.startswith(_HEADS)]
        colour, dash = COLOURS[alike.index(name) % len(COLOURS)], "dashed" if name.startswith(_HEADS) else "solid"
        line = p.line("x", "y", source=source, color=colour, line_dash=dash, line_width=2, legend_label=name)
        if len(x) < _DOTTED_CHECKS:
            p.scatter("x", "y", source=source, color=colour, size=4, legend_label=name)
        tips = [(name, "@y{%.4g}"), (x_label, "@x{0,0}")]
        hover = HoverTool(renderers=[line], mode="vline", tooltips=tips, visible=False)
        hover.formatters = {"@y": "printf"}
        p.add_tools(hover)
    p.legend.visible = len(curves) > 1
    return p


def _level(p: figure, at: float, *, vertical: bool = False) -> None:
    p.add_layout(
        Span(
            location=at, dimension="height" if vertical else "width", line_color=_GREY, line_dash="dashed", line_width=1
        )
    )


def _column(checks: Sequence[FitCheck], name: str) -> Floats:
    return np.array([getattr(check, name) for check in checks], np.float64)


def losses(checks: Sequence[FitCheck], before: float) -> figure:
    """Training and held-back loss, the latter from `before` the fit on; a line where it was best."""
    step = np.concatenate([[0.0], _column(checks, "step")])
    held_back = np.concatenate([[before], _column(checks, "held_back")])
    training = np.concatenate([[np.nan], _column(checks, "loss")])
    p = _lines("step", "loss (pinball)", step, {"training (running mean)": training, "held back": held_back})
    if np.isfinite(held_back).any():
        _level(p, float(step[np.nanargmin(held_back)]), vertical=True)
    return p


def errors(checks: Sequence[FitCheck], before: Quality) -> figure:
    """Error on held-back data before the fit and while it learned, for each step ahead."""
    step = np.concatenate([[0.0], _column(checks, "step")])
    looks = np.array([before.error, *(check.error for check in checks)])  # (1 + C, 1 + K)
    p = _lines(
        "step", "error / last value's", step, {f"{k} ahead": y for k, y in zip(before.steps, looks.T, strict=True)}
    )
    _level(p, 1.0)
    return p


def learning_rate(checks: Sequence[FitCheck]) -> figure:
    """The learning rate as scheduled."""
    p = _lines("step", "learning rate", _column(checks, "step"), {"rate": _column(checks, "learning_rate")})
    p.yaxis.formatter = PrintfTickFormatter(format="%.3g")
    return p


def readings(checks: Sequence[FitCheck]) -> figure:
    """Speed between checks."""
    p = _lines("step", "readings / s", _column(checks, "step"), {"speed": speed(checks)})
    p.yaxis.formatter = NumeralTickFormatter(format="0.[0]a")
    p.y_range.start = 0  # type: ignore[attr-defined] # a DataRange1d, which figure() made
    return p


def gradient_norm(checks: Sequence[FitCheck], clip: float | None) -> figure:
    """Of all parameters together, before clipping."""
    p = _lines("step", "gradient norm", _column(checks, "step"), {"norm": _column(checks, "gradient_norm")}, log=True)
    if clip is not None:
        _level(p, clip)
    return p


def weight_norm(checks: Sequence[FitCheck]) -> figure:
    """Of all parameters together."""
    return _lines("step", "weight norm", _column(checks, "step"), {"norm": _column(checks, "weight_norm")})


def gradients(norms: Norms) -> figure:
    """Of each part of the network."""
    return _lines("step", "gradient norm", norms.step, norms.groups("gradient"), log=True)


def weights(norms: Norms) -> figure:
    """Of each part of the network."""
    return _lines("step", "weight norm", norms.step, norms.groups("weight"))


def histogram(r: Residuals) -> figure:
    """Standardised one-step residuals, against the density of a normal distribution."""
    z = r.standard()
    z = np.clip(z[np.isfinite(z)], -_AXIS_DEVIATIONS, _AXIS_DEVIATIONS)
    p = _figure("standardised residual, one step ahead", "density")
    height, edges = np.histogram(z, 80, (-_AXIS_DEVIATIONS, _AXIS_DEVIATIONS), density=len(z) > 0)
    p.quad(
        top=height, bottom=0, left=edges[:-1], right=edges[1:], color=SKY, line_color="white", legend_label="residuals"
    )
    x = np.linspace(-_AXIS_DEVIATIONS, _AXIS_DEVIATIONS, 200)
    normal = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    p.line(x, normal, color=RED, line_width=2, line_dash="dashed", legend_label="a normal distribution")
    return p


def against_forecast(r: Residuals, rng: np.random.Generator) -> figure:
    """Standardised residual over the forecast move, with the mean in ten ranges that hold equally many."""
    move, z = r.forecast[0, 0] / r.scale, r.standard()
    known = np.isfinite(z)
    move, z = move[known], np.clip(z[known], -_AXIS_DEVIATIONS, _AXIS_DEVIATIONS)
    p = _figure("forecast move, in units of the series", "standardised residual")
    _level(p, 0.0)
    if not len(z):
        return p
    pick = rng.choice(len(z), min(_SCATTER_POINTS, len(z)), replace=False)
    low, high = np.quantile(move, [0.005, 0.995])
    p.x_range = Range1d(start=float(low), end=float(max(high, low + 1e-9)))
    p.scatter(move[pick], z[pick], size=3, color=BLUE, alpha=0.25, line_color=None, legend_label="a reading")
    edges = np.unique(np.quantile(move, np.linspace(0, 1, 11)))
    cell = np.clip(np.searchsorted(edges, move, "right") - 1, 0, max(len(edges) - 2, 0))
    used = np.unique(cell)
    x = [float(np.median(move[cell == i])) for i in used]
    y = [float(z[cell == i].mean()) for i in used]
    p.line(x, y, color=RED, line_width=2, legend_label="mean of a tenth of them")
    p.scatter(x, y, color=RED, size=7, legend_label="mean of a tenth of them")
    return p


def autocorrelation(r: Residuals) -> figure:
    """Of one-step residuals, mean over the series; dashed: what chance gives one series."""
    values, count = r.autocorrelation(LAGS)
    p = _figure("lag, readings", "autocorrelation")
    lag = np.arange(1.0, len(values) + 1)
    p.segment(lag, np.zeros(len(lag)), lag, values, color=BLUE, line_width=4)
    _level(p, 0.0)
    band = 1.96 / np.sqrt(count) if count else 0.0
    for side in (-band, band):
        _level(p, side)
    reach = max(0.1, 1.2 * float(np.nanmax(np.abs(values), initial=0.0)), 1.5 * band)
    p.y_range = Range1d(start=-reach, end=reach)
    return p


def calibration(r: Residuals) -> figure:
    """Observed against nominal share of values below each quantile."""
    p = _figure("nominal share below the quantile", "observed share")
    p.line([0, 1], [0, 1], color=_GREY, line_dash="dashed")
    markers = ("circle", "triangle", "square", "diamond")
    for k, ahead in enumerate(r.steps):
        nominal, observed = zip(*r.below(k), strict=True)
        colour = COLOURS[k % len(COLOURS)]
        p.line(nominal, observed, color=colour, legend_label=f"{ahead} ahead", line_width=1)
        p.scatter(nominal, observed, marker=markers[k % 4], size=9, color=colour, legend_label=f"{ahead} ahead")
    p.x_range = p.y_range = Range1d(start=-0.02, end=1.02)
    for axis in p.axis:
        axis.formatter = NumeralTickFormatter(format="0%")
        axis.ticker = [0.05, 0.25, 0.5, 0.75, 0.95]
    return p


def ranges(r: Residuals) -> figure:
    """Where the values fall among the quantiles, observed over nominal share: flat at 1 if calibrated (as a PIT is)."""
    names = ["below 5%", "5 to 50%", "50 to 95%", "above 95%"]
    p = _figure("range between the forecast quantiles", "observed / nominal share")
    for k, ahead in enumerate(r.steps):
        nominal, observed = (np.diff([0.0, *column, 1.0]) for column in zip(*r.below(k), strict=True))
        wide = 0.8 / len(r.steps)
        x = np.arange(len(names)) - 0.4 + wide * (k + 0.5)
        colour = COLOURS[k % len(COLOURS)]
        p.vbar(x=x, top=observed / nominal, width=wide * 0.9, color=colour, legend_label=f"{ahead} ahead")
    _level(p, 1.0)
    p.xaxis.ticker = list(range(len(names)))
    p.xaxis.major_label_overrides = dict(enumerate(names))
    p.xgrid.grid_line_color = None
    return p


def by_horizon(r: Residuals) -> figure:
    """Error against the last value's by step ahead: geometric mean and quartiles over the series."""
    p = _figure("steps ahead", "error / last value's")
    names, (mean, low, high) = [str(step) for step in r.steps], r.by_horizon()
    x = np.arange(float(len(names)))
    source = ColumnDataSource({"x": x, "mean": mean, "low": low, "high": high})
    p.vbar("x", top="mean", width=0.5, color=SKY, source=source)
    p.add_layout(Whisker(base="x", lower="low", upper="high", source=source, line_color="black", level="overlay"))
    _level(p, 1.0)
    p.xaxis.ticker = list(range(len(names)))
    p.xaxis.major_label_overrides = dict(enumerate(names))
    p.xgrid.grid_line_color = None
    p.y_range = Range1d(start=0, end=1.1 * float(np.nanmax(high, initial=1.0)))
    p.add_tools(HoverTool(tooltips=[("mean", "@mean{0.000}"), ("quartiles", "@low{0.000} to @high{0.000}")]))
    return p


def by_age(r: Residuals) -> figure:
    """One-step error against the last value's by how much of a series was seen."""
    x, y = r.by_age()
    p = _figure("readings seen of a series", "error / last value's", log_x=True)
    p.line(x, y, color=BLUE, line_width=2)
    p.scatter(x, y, color=BLUE, size=6)
    _level(p, 1.0)
    p.xaxis.formatter = NumeralTickFormatter(format="0,0")
    p.y_range = Range1d(start=0, end=1.1 * float(np.max(y, initial=1.0)))
    return p


def example(r: Residuals, series: int) -> figure | None:
    """The end of a series with the forecasts for each reading that were made one step and some steps before."""
    run = r.stretch(series, _SHOWN_READINGS)
    if run.stop - run.start < 3:
        return None
    moves = r.target[0, run, series].astype(np.float64)
    value = np.concatenate([[0.0], np.cumsum(moves)])  # of the readings run.start ... run.stop
    p = _figure("reading of the window", "value - first one shown")
    far = 1 if len(r.steps) > 1 and r.steps[1] < len(moves) else None
    for k, colour, alpha in ((far, ORANGE, 0.3), (0, BLUE, 0.35)):
        if k is None:
            continue
        ahead = r.steps[k]
        made = value[: len(value) - ahead]  # the readings that forecasts for those shown were made at
        middle, low, high = made + r.forecast[k, :, run, series][:, : len(made)]
        x = np.arange(run.start + ahead, run.start + ahead + len(made))
        name = f"90% interval, {ahead} ahead"
        p.varea(x, low, high, color=colour, alpha=alpha, legend_label=name)
        p.line(x, middle, color=colour, line_width=1.5, line_dash="dashed" if k else "solid", legend_label=name)
    x = np.arange(run.start, run.start + len(value))
    p.line(x, value, color="black", line_width=1.5, legend_label="value")
    room = 0.3 * float(np.ptp(value)) or 1.0  # an interval may be far wider than the values
    p.y_range = Range1d(start=float(value.min()) - room, end=float(value.max()) + room)
    return p
