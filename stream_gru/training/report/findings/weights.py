"""What gradients and weights did."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stream_gru.training.report.findings.evidence import (
    Finding,
    FitEvidence,
    Rule,
    clipping,
    last_quarter,
    second_half,
    slower,
    typical,
)

_CUT_RATIO = 10.0  # times the clipping norm: a step that was cut to a tenth is led by its largest outliers
_CUT_MUCH_RATIO = 100.0  # times that norm: to a hundredth
_VANISHED_RATIO = 1e-3  # of the head's gradient, or of its own at first: the cell then learns a thousand times slower
_STANDS_FOR_ZERO = 1e-30  # stands for zero in ratios
_GROWN_RATIO = 5.0  # times the first weights' norm: hours of fitting bring a healthy network to about twice


def exploding_gradients(log: FitEvidence) -> Finding | None:
    """Norms far above what they are clipped to."""
    norm, clip = log.column("gradient_norm"), clipping(log.recipe)
    if not len(norm):
        return None
    late, largest = typical(norm), float(np.nanmax(norm, initial=0.0))
    if not (late > _CUT_RATIO * clip or largest > _CUT_MUCH_RATIO * clip or ~np.isfinite(norm).all()):
        return None
    spikes = late <= _CUT_RATIO * clip
    return Finding(
        "exploding_gradients",
        "warning" if spikes else "serious",
        "Gradients explode now and then" if spikes else "Gradients explode",
        f"Their norm before clipping was {late:.3g} at the median check of the second half, {late / clip:.3g} times "
        f"the clipping norm {clip:.3g}, and {largest:.3g} at most.",
        "Clipping has bounded each step. "
        + (
            "If the loss falls all the same, nothing; else look for outliers in the data."
            if spikes
            else f"{slower(log)} Also `--set plan.chunk={max(8, log.recipe.plan.chunk // 4)}`, for gradients through "
            "fewer steps."
        ),
    )


def vanishing_gradients(log: FitEvidence) -> Finding | None:
    """Norms that are next to nothing."""
    ratios = list(_faded(log))
    if not ratios:
        return None
    ratio, name, than, norm = min(ratios)
    if not ratio < _VANISHED_RATIO:
        return None
    return Finding(
        "vanishing_gradients",
        "serious",
        "Gradients vanish",
        f"In the second half of the fit the gradient of {name} was {ratio:.1g} {than}, {norm:.2g} at the median.",
        "Units may be saturated: a lower learning rate, `--set network.norm=layer`. In a deep network: "
        "`--set network.residual=true` or fewer layers. With a plain RNN: gru or lstm, which carry gradients further.",
    )


def _faded(log: FitEvidence) -> Iterator[tuple[float, str, str, float]]:
    """How small gradients are late in the fit: the ratio, of what, compared to what, and their norm."""
    norm = log.column("gradient_norm")
    if len(norm) >= 4:
        yield typical(norm) / max(norm[0], _STANDS_FOR_ZERO), "all parameters", "of what it was at first", typical(norm)
    if log.norms is None or len(log.norms.step) < 4:
        return
    groups = log.norms.groups("gradient")
    heads = np.sqrt(sum((norm**2 for name, norm in groups.items() if name.startswith("heads")), np.zeros(1)))
    for name in log.norms.cells():
        late, first = typical(groups[name]), float(np.median(groups[name][: len(groups[name]) // 4 or 1]))
        yield late / max(first, _STANDS_FOR_ZERO), name, "of what it was at first", late
        yield (
            float(np.median(second_half(groups[name]) / np.maximum(second_half(heads), _STANDS_FOR_ZERO))),
            name,
            "of the heads'",
            late,
        )


def exploding_weights(log: FitEvidence) -> Finding | None:
    """Norms far above the first ones."""
    norm = log.column("weight_norm")
    if not len(norm):
        return None
    first = norm[0] if log.fresh is None else log.fresh
    if np.isfinite(norm).all() and last_quarter(norm) <= _GROWN_RATIO * first:
        return None
    where = ""
    if log.norms is not None and len(log.norms.step):
        last = {name: float(column[-1]) for name, column in log.norms.groups("weight").items()}
        where = f"; the largest part is {max(last, key=lambda name: last[name])}"
    return Finding(
        "exploding_weights",
        "serious",
        "Weights explode",
        f"Their norm went from {first:.3g} to {norm[-1]:.3g}{where}.",
        f"{slower(log)} Or more decay: `--set plan.weight_decay={max(0.05, 5 * log.recipe.plan.weight_decay):g}`.",
    )


RULES: tuple[Rule, ...] = (exploding_gradients, vanishing_gradients, exploding_weights)
