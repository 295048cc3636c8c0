"""How good the forecasts are on held-back data."""

from __future__ import annotations

import numpy as np

from stream_gru.training.report.findings.evidence import HARDLY, Finding, FitEvidence, Rule, ahead

_COVERAGE = 0.90  # of the interval, by its definition
_MISSED = 0.04  # off the coverage: the deviation over thousands of dependent readings is about 0.01
_MISSED_MUCH = 0.15  # an interval of 90% that holds 75% or less
_REPEATS_CORRELATION = 0.2  # autocorrelation: to use it would take 4%, its square, off the variance
_WORSE_RATIO = 1.05  # of the last value's error: what chance does not explain


def worse_than_last_value(log: FitEvidence) -> Finding | None:
    """No use."""
    bad = [k for k, error in enumerate(log.quality.error) if not error < HARDLY]
    if not bad:
        return None
    errors = ", ".join(f"{log.quality.error[k]:.3f} at {ahead(log.quality.steps[k])}" for k in bad)
    return Finding(
        "worse_than_last_value",
        "serious" if any(not log.quality.error[k] < _WORSE_RATIO for k in bad) else "warning",
        "No better than repeating the last value",
        f"Error divided by that of repeating the last value, on held-back data: {errors}.",
        "Train for longer, start from the package's bundle, or give the network more to go by: context.hour, "
        "context.weekday, covariates. A random walk is forecast no better by anything.",
    )


def miscalibrated(log: FitEvidence) -> Finding | None:
    """Intervals that hold too much or too little."""
    off = [coverage - _COVERAGE for coverage in log.quality.coverage]
    bad = [k for k, miss in enumerate(off) if not abs(miss) <= _MISSED]
    if not bad:
        return None
    worst = max(bad, key=lambda k: abs(off[k]))
    covered = ", ".join(f"{log.quality.coverage[k]:.1%} at {ahead(log.quality.steps[k])}" for k in bad)
    wide = off[worst] > 0
    return Finding(
        "miscalibrated",
        "serious" if abs(off[worst]) > _MISSED_MUCH else "warning",
        f"The 90% interval is too {'wide' if wide else 'narrow'}",
        f"On held-back data it holds {covered}.",
        "Train for longer, or look for outliers in the training data, which intervals learn to hold. For series that "
        "hardly ever move it is right: their values lie on the bounds."
        if wide
        else "Train for longer if the loss was still falling. Else the held-back part may differ from what came before "
        "it: more, or more recent, training data; or the network is overfitted.",
    )


def pattern_left(log: FitEvidence) -> Finding | None:
    """Residuals that could have been foreseen."""
    if log.autocorrelation is None or not np.isfinite(log.autocorrelation).any():
        return None
    lag = int(np.nanargmax(np.abs(log.autocorrelation)))
    value = float(log.autocorrelation[lag])
    if abs(value) <= _REPEATS_CORRELATION:
        return None
    unset = [name for name in ("hour", "weekday") if not getattr(log.recipe.context, name)]
    told = " and ".join(f"`--set context.{name}=true`" for name in unset)
    calendar = f"If that is a day or a week, tell the network of it: {told}. " if unset else ""
    return Finding(
        "pattern_left",
        "hint",
        "Residuals follow a pattern that the network leaves unused",
        f"On held-back data the autocorrelation of its one-step residuals is {value:+.2f} at lag {lag + 1}.",
        f"{calendar}Train for longer, with more units, `--set network.hidden={2 * log.recipe.network.hidden}`, or with "
        f"attention over more than {lag + 1} readings: `--set network.attention={max(32, 2 * (lag + 1))}`.",
    )


RULES: tuple[Rule, ...] = (worse_than_last_value, miscalibrated, pattern_left)
