"""The report of a fit: one HTML page with curves, residuals, calibration and a diagnosis, which needs no network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from stream_gru.errors import TrainingError
from stream_gru.models.bundle import build
from stream_gru.training.prepare import Prepared
from stream_gru.training.recipe import Recipe
from stream_gru.training.report import facts, norms
from stream_gru.training.report.diagnosis import Finding, FitEvidence, diagnose
from stream_gru.training.report.findings.evidence import clipping
from stream_gru.training.report.page import TEMPLATE
from stream_gru.training.report.residuals import LAGS, Residuals, residuals

try:
    from bokeh.embed import components
    from bokeh.resources import Resources
    from jinja2 import Environment
    from markupsafe import Markup, escape

    from stream_gru.training.report import panels
    from stream_gru.training.report.panels import ReportSection
except ImportError:
    raise TrainingError("a report needs the `training` extra: pip install 'stream-gru[training]'") from None

if TYPE_CHECKING:  # it brings lightning, which a report doesn't need
    from stream_gru.training.fit import Fitted

_MARKS = {"serious": "▲ Serious:", "warning": "◆ Look at this:", "hint": "● Hint:", "good": "✓"}
_ALIKE_SHARE = 0.005  # a difference that is not worth a number


def write(file: Path, fitted: Fitted, prepared: Prepared, recipe: Recipe | None = None) -> Path:
    """Write the page of a fit. `prepared` are the held-back windows; with the `recipe` it is told, too.

    Raises `TrainingError` where the file can't be written.
    """
    left = residuals(fitted.forecaster, prepared)
    found = diagnosed(fitted, recipe, left)
    sections = [
        ReportSection("How it learned", panels.curves(fitted, _norms(fitted), clipping(recipe) if recipe else None)),
        ReportSection("On held-back data", panels.held_back(left)),
        ReportSection("Examples from held-back data", panels.examples(left)),
    ]
    page = _render(fitted, recipe, found, [section for section in sections if section.panels])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"the report can't be written to {file}: {error.strerror}") from None
    return file


def diagnosed(fitted: Fitted, recipe: Recipe | None = None, left: Residuals | None = None) -> list[Finding]:
    """The diagnosis of a fit, from its checks, its log of norms, its quality and what it has left unexplained."""
    return diagnose(
        FitEvidence(
            fitted.checks,
            fitted.before.loss,
            fitted.quality,
            _norms(fitted),
            recipe or _implied(fitted),
            fitted.stopped,
            left.autocorrelation(LAGS)[0] if left is not None else None,
            _fresh(fitted),
        )
    )


def _norms(fitted: Fitted) -> norms.Norms | None:
    return norms.read(fitted.log / "norms.csv") if fitted.log is not None else None


def _fresh(fitted: Fitted) -> float:
    with torch.random.fork_rng(devices=[]):  # a report leaves the dice of its caller alone
        weights = [weight.detach().norm() for weight in build(fitted.description).parameters()]
    return float(torch.stack(weights).norm())


def _implied(fitted: Fitted) -> Recipe:
    """What the bundle says of its recipe; the rest is as by default."""
    described = fitted.description
    return Recipe(network=described.network, horizons=described.horizons, context=described.context)


def _render(fitted: Fitted, recipe: Recipe | None, found: list[Finding], sections: list[ReportSection]) -> str:
    script, charts = components([panel.chart for section in sections for panel in section.panels])
    html = map(Markup, charts)
    every, changed = facts.settings(recipe or _implied(fitted))
    return (
        Environment(autoescape=True)
        .from_string(TEMPLATE)
        .render(
            name=fitted.description.name,
            verdict=_verdict(fitted, found),
            findings=found,
            marks=_MARKS,
            code=_code,
            facts=facts.facts(fitted),
            quality=list(zip(fitted.quality.steps, fitted.quality.error, fitted.quality.coverage, strict=True)),
            recipe_title="The recipe" if recipe else "The network",
            settings=every,
            changed=changed,
            sections=[(section.title, [(panel, next(html)) for panel in section.panels]) for section in sections],
            resources=Markup(Resources(mode="inline", components=["bokeh"]).render()),  # noqa: S704 # bokeh's own
            script=Markup(script),  # noqa: S704 # bokeh escapes what it holds
        )
    )


def _verdict(fitted: Fitted, found: list[Finding]) -> str:
    quality = fitted.quality
    parts = []
    if quality.error:
        gain, far = 1 - quality.error[0], quality.steps[1:]
        errs = (
            f"{abs(gain):.0%} {'less' if gain > 0 else 'more'} than" if abs(gain) > _ALIKE_SHARE else "about as much as"
        )
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
        hints = any(finding.severity == "hint" for finding in found)
        parts.append(f"The log shows nothing wrong with the fit{'; a hint is below' if hints else ''}.")
    return " ".join(parts)


def _code(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 # escaped before
