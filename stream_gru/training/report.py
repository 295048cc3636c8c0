"""The report of a fit: one HTML page with curves, residuals, calibration and a diagnosis, which needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from stream_gru.errors import TrainingError
from stream_gru.models.network import Network
from stream_gru.training import norms
from stream_gru.training.diagnosis import Evidence, Finding, diagnose
from stream_gru.training.page import TEMPLATE
from stream_gru.training.prepare import Prepared
from stream_gru.training.recipe import Recipe
from stream_gru.training.residuals import Residuals, residuals

try:
    from bokeh.embed import components
    from bokeh.plotting import figure
    from bokeh.resources import Resources
    from jinja2 import Environment
    from markupsafe import Markup
except ImportError:
    raise TrainingError("a report needs the `training` extra: pip install 'stream-gru[training]'") from None

if TYPE_CHECKING:  # it brings lightning, which a report doesn't need
    from stream_gru.training.fit import Fitted

_MARKS = {"serious": "▲ Serious:", "warning": "◆ Look at this:", "hint": "● Hint:", "good": "✓"}
_STOPPED = {
    "steps": "its steps were done",
    "time": "its time was up",
    "patience": "the held-back loss no longer fell",
    "pruned": "the search gave it up",
}
_EXAMPLES = (0.05, 0.35, 0.65, 0.95)  # of the series, in order of their error
_ALIKE = 0.005  # a difference that is not worth a number
_SEED = 0  # of the points that a scatter shows


class Panel(NamedTuple):
    """One chart."""

    title: str
    note: str
    chart: Any  # a figure, then its HTML
    wide: bool = False


class Section(NamedTuple):
    """Charts under one heading."""

    title: str
    panels: list[Panel]


def write(file: Path, fitted: Fitted, prepared: Prepared, recipe: Recipe | None = None) -> Path:
    """Write the page of a fit. `prepared` are the held-back windows; with the `recipe` it is told, too.

    Raises `TrainingError` where the file can't be written.
    """
    found = diagnosed(fitted, recipe)
    left = residuals(fitted.forecaster, prepared)
    sections = [Section("How it learned", _curves(fitted, recipe)), Section("On held-back data", _held_back(left))]
    if examples := _examples(left):
        sections.append(Section("Examples from held-back data", examples))
    page = _render(fitted, recipe, found, sections)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"the report can't be written to {file}: {error.strerror}") from None
    return file


def diagnosed(fitted: Fitted, recipe: Recipe | None = None) -> list[Finding]:
    """The diagnosis of a fit, from its checks, its log of norms and its quality."""
    return diagnose(
        Evidence(
            fitted.checks,
            fitted.before.loss,
            fitted.quality,
            _norms(fitted),
            recipe or _implied(fitted),
            fitted.stopped,
        )
    )


def _norms(fitted: Fitted) -> norms.Norms | None:
    return norms.read(fitted.log / "norms.csv") if fitted.log is not None else None


def _implied(fitted: Fitted) -> Recipe:
    """What the bundle says of its recipe; the rest is as by default."""
    described = fitted.description
    return Recipe(network=described.network, horizons=described.horizons, context=described.context)


def _curves(fitted: Fitted, recipe: Recipe | None) -> list[Panel]:
    from stream_gru.training import charts

    checks, log = fitted.checks, _norms(fitted)
    if not checks:
        return []
    clip = recipe.plan.clip if recipe else None
    panels = [
        Panel(
            "Loss",
            "Both should fall and level off; a held-back loss that rises again is overfitting. The dashed "
            "line marks the weights that were kept.",
            charts.losses(checks, fitted.before.loss),
        ),
        Panel(
            "Error on held-back data",
            "Mean absolute error divided by that of repeating the last value (dashed), for each step ahead.",
            charts.errors(checks, fitted.quality.steps),
        ),
        Panel(
            "Gradient norm",
            "Of all parameters before clipping, log scale" + (f"; clipped at {clip:g} (dashed)." if clip else "."),
            charts.gradient_norm(checks, clip),
        ),
        Panel(
            "Weight norm", "Of all parameters. It may grow at first and should level off.", charts.weight_norm(checks)
        ),
        Panel("Learning rate", "As the schedule set it.", charts.learning_rate(checks)),
        Panel("Speed", "Readings learned from a second, between two checks.", charts.readings(checks)),
    ]
    if log is not None:
        panels += [
            Panel(
                "Gradient norm of each part",
                "Log scale. Parts whose gradient is thousands of times smaller than the heads' hardly learn. "
                "Click on a name to hide it.",
                charts.gradients(log),
            ),
            Panel(
                "Weight norm of each part", "A part that keeps growing is worth more weight decay.", charts.weights(log)
            ),
        ]
    return panels


def _held_back(left: Residuals) -> list[Panel]:
    from stream_gru.training import charts

    return [
        Panel(
            "Error by step ahead",
            "Against repeating the last value (dashed). Bars: geometric mean over the series; whiskers: quartiles.",
            charts.by_horizon(left),
        ),
        Panel(
            "Error by readings seen",
            "One step ahead: how soon a new series is forecast well.",
            charts.by_age(left),
        ),
        Panel(
            "Calibration of the quantiles",
            "Share of values below the 5%, 50% and 95% quantile. On the dashed line intervals can be taken literally.",
            charts.calibration(left),
        ),
        Panel(
            "Where the values fall",
            "Share of values in each range over what it should be: 1 everywhere is calibrated; high ends mean "
            "intervals that are too narrow.",
            charts.ranges(left),
        ),
        Panel(
            "Standardised residuals",
            "One step ahead, divided by the interval so that 90% should lie within ±1.64. Far ones are counted at the "
            "ends.",
            charts.histogram(left),
        ),
        Panel(
            "Residual against forecast",
            "A mean far from zero is a bias where the forecast moves that far.",
            charts.against_forecast(left, np.random.default_rng(_SEED)),
        ),
        Panel(
            "Autocorrelation of the residuals",
            "One step ahead, mean over the series. Beyond the dashed lines something of the past is left unused.",
            charts.autocorrelation(left),
            wide=True,
        ),
    ]


def _examples(left: Residuals) -> list[Panel]:
    from stream_gru.training import charts

    panels = []
    for share, (ratio, series) in zip(_EXAMPLES, left.examples(_EXAMPLES), strict=False):
        chart = charts.example(left, series)
        if chart is not None:
            note = (
                f"Better forecast than this: {share:.0%} of the series. One-step error {ratio:.2f} of the last value's."
            )
            panels.append(Panel(f"Window {series}", note, chart, wide=True))
    return panels


def _render(fitted: Fitted, recipe: Recipe | None, found: list[Finding], sections: list[Section]) -> str:
    figures: list[figure] = [panel.chart for section in sections for panel in section.panels]
    script, charts = components(figures)
    html = iter(charts)
    settings, changed = _settings(recipe or _implied(fitted))
    return (
        Environment(autoescape=True)
        .from_string(TEMPLATE)
        .render(
            name=fitted.description.name,
            verdict=_verdict(fitted, found),
            findings=found,
            marks=_MARKS,
            facts=_facts(fitted),
            quality=list(zip(fitted.quality.steps, fitted.quality.error, fitted.quality.coverage, strict=True)),
            recipe_title="The recipe" if recipe else "The network",
            settings=settings,
            changed=changed,
            sections=[
                Section(title, [panel._replace(chart=Markup(next(html))) for panel in panels])  # noqa: S704 # bokeh's
                for title, panels in sections
            ],
            resources=Markup(Resources(mode="inline", components=["bokeh"], log_level="error").render()),  # noqa: S704 # bokeh's
            script=Markup(script),  # noqa: S704 # bokeh's, which escapes what it holds
        )
    )


def _verdict(fitted: Fitted, found: list[Finding]) -> str:
    quality = fitted.quality
    parts = []
    if quality.error:
        gain, far = 1 - quality.error[0], quality.steps[1:]
        errs = f"{abs(gain):.0%} {'less' if gain > 0 else 'more'} than" if abs(gain) > _ALIKE else "about as much as"
        ahead = f" ({far[-1]} steps ahead: {quality.error[-1]:.2f} of its error)" if far else ""
        parts.append(
            f"On held-back data its forecast of the next reading errs {errs} repeating the last value would{ahead}, "
            f"and {quality.coverage[0]:.0%} of values lie within the 90% interval."
        )
    grave = [finding for finding in found if finding.severity in {"serious", "warning"}]
    if grave:
        names = "; ".join(finding.what[0].lower() + finding.what[1:] for finding in grave)
        parts.append(f"To mend: {names}.")
    else:
        parts.append("The log shows nothing wrong with the fit.")
    return " ".join(parts)


def _facts(fitted: Fitted) -> dict[str, str]:
    parameters = sum(weight.numel() for weight in fitted.forecaster.parameters())
    network = fitted.description.network
    usual = _flat(Network(), "")
    parts = [f"{name} {_text(value)}" for name, value in _flat(network, "").items() if value != usual[name]]
    beside = [part for part in parts if not part.startswith(("cells ", "hidden "))]
    seconds = max(fitted.seconds, 1e-9)
    facts = {
        "Network": ", ".join([" + ".join(network.cells), f"{network.hidden} units", *beside]),
        "Steps ahead": ", ".join(map(str, fitted.quality.steps)),
        "Parameters": f"{parameters:,}",
        "Size of the weights": _bytes(4 * parameters),
        "State of the network, each series": _bytes(4 * fitted.forecaster.network.state_size),
        "Steps": f"{fitted.steps:,}, stopped since {_STOPPED.get(fitted.stopped, fitted.stopped)}",
        "Readings learned from": f"{fitted.readings:,}",
        "Time": f"{_time(fitted.seconds)}, {fitted.readings / seconds:,.0f} readings/s",
        "Batches skipped": f"{fitted.skipped:,}",
    }
    looks = [(0, fitted.before.loss), *((check.step, check.held_back) for check in fitted.checks)]
    step, loss = min(looks, key=lambda look: look[1] if np.isfinite(look[1]) else np.inf)
    facts["Held-back loss"] = f"{fitted.before.loss:.4g} before, at best {loss:.4g} at step {step:,}, which was kept"
    return facts


def _settings(recipe: Recipe) -> tuple[dict[str, str], dict[str, str]]:
    """All settings by dotted names, and those that are not as by default."""
    every, usual = _flat(recipe, ""), _flat(Recipe(), "")
    changed = {name: _text(value) for name, value in every.items() if value != usual.get(name)}
    return {name: _text(value) for name, value in every.items()}, changed


def _flat(model: BaseModel, before: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, BaseModel) else {before + name: value}
    return flat


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _bytes(n: float) -> str:
    for unit in ("bytes", "kB"):
        if n < 1000:
            return f"{n:,.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} MB"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
