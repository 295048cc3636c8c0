"""How the loss went."""

from __future__ import annotations

import numpy as np

from stream_gru.training.report.findings.evidence import HARDLY, Finding, FitEvidence, Rule, last_quarter, slower

_LEAST_FALL_SHARE = 0.01  # of the first loss: the running loss of healthy fits wavers by less than this
_WARM_UPS = 2  # times the steps of the warm-up: with fewer it hardly learned at the rate that was asked for
_RISE_SHARE = 0.05  # of the first loss: more than wavering, it goes the wrong way
_OVERFIT_SHARE = 0.03  # held-back loss above its best: several times what it wavers by, since its windows stay the same
_OVERFIT_MUCH_SHARE = 0.15  # five times that: the weights of the end are of little use
_STILL_FALLING = 0.02  # of the loss within the last quarter: as much again is likely for as many steps


def not_finite(log: FitEvidence) -> Finding | None:
    """A loss that is no number."""
    bad = ~np.isfinite(log.held_back) | ~np.isfinite(log.loss)
    if not bad.any():
        return None
    return Finding(
        "not_finite",
        "serious",
        "The loss became infinite or not a number",
        f"At {bad.sum()} of {len(bad)} looks, first at step {log.step[bad][0]:,.0f}.",
        f"{slower(log)} Look for impossible values in the data.",
    )


def not_falling(log: FitEvidence) -> Finding | None:
    """Nothing learned, or the contrary."""
    if not _stuck(log):
        return None
    late, late_held_back = last_quarter(log.loss), last_quarter(log.held_back)
    rising = late_held_back > (1 + _RISE_SHARE) * log.before
    poor = not log.quality.error[0] < HARDLY
    return Finding(
        "not_falling",
        "serious" if rising or poor else "hint",
        "The loss rises" if rising else "The loss does not fall",
        f"On held-back data it was {log.before:.4g} before the fit, {np.nanmin(log.held_back[1:]):.4g} at best and "
        f"{late_held_back:.4g} over the last checks; on training data {log.loss[0]:.4g} at the first check and "
        f"{late:.4g} over the last.",
        _unstuck(log, rising=rising, poor=poor),
    )


def _unstuck(log: FitEvidence, *, rising: bool, poor: bool) -> str:
    steps, plan = log.step[-1], log.recipe.plan
    if rising or (poor and steps > _WARM_UPS * plan.warm_up):
        return slower(log)
    if poor:
        return (
            f"Train for longer: of {steps:,.0f} steps the first {min(plan.warm_up, steps):,.0f} went by while the "
            f"learning rate warmed up. Try `--steps {max(10 * plan.warm_up, 4 * int(steps))}`."
        )
    return (
        "Nothing, if it began from weights that were good already; otherwise another learning rate than "
        f"{plan.learning_rate:g}, three times more and less."
    )


def _stuck(log: FitEvidence) -> bool:
    """Whether it has learned nothing: a held-back loss that gained nothing may also be one that was overfitted."""
    if len(log.checks) < 2 or not np.isfinite(log.held_back[1:]).any():
        return False
    gained = np.nanmin(log.held_back[1:]) < (1 - _LEAST_FALL_SHARE) * log.before
    late = last_quarter(log.loss)
    learned = late < (1 - _LEAST_FALL_SHARE) * log.loss[0] and late < (1 + _RISE_SHARE) * log.before
    return not gained and not learned


def overfitting(log: FitEvidence) -> Finding | None:
    """Held-back loss rises while training loss falls."""
    if len(log.checks) < 4 or not np.isfinite(log.held_back).any() or _stuck(log):
        return None
    best = int(np.nanargmin(log.held_back))
    after = log.held_back[best + 1 :]
    if len(after) < 2:
        return None
    rise = last_quarter(after) / log.held_back[best] - 1
    fall = 1 - last_quarter(log.loss[best:]) / log.loss[best]
    if not (rise > _OVERFIT_SHARE and fall > 0):
        return None
    plan, network = log.recipe.plan, log.recipe.network
    return Finding(
        "overfitting",
        "serious" if rise > _OVERFIT_MUCH_SHARE else "warning",
        "Overfitting: it learns the training data by heart",
        f"The held-back loss was best at step {log.step[best]:,.0f}, {log.held_back[best]:.4g}, and ended {rise:.1%} "
        f"above that, while the training loss fell by {fall:.1%} more.",
        "The weights of the best step were kept, so the bundle is no worse for it. To gain: more data, "
        f"`--set network.dropout={min(0.5, network.dropout + 0.2):g}`, "
        f"`--set plan.weight_decay={plan.weight_decay * 5 or 0.05:g}`, `--set data.augment.noise=0.3` or "
        f"`--set network.hidden={max(1, network.hidden // 2)}`; `--set plan.patience=5` saves the time.",
    )


def underfitting(log: FitEvidence) -> Finding | None:
    """Stopped too soon."""
    if len(log.checks) < 4 or log.stopped == "patience" or not np.isfinite(log.held_back).all():
        return None
    then = float(np.interp(0.75 * log.step[-1], log.step, log.held_back))
    now = float(log.held_back.min())
    gain = 1 - now / then
    if not (gain > _STILL_FALLING and log.held_back.argmin() >= len(log.held_back) - 2):
        return None
    return Finding(
        "underfitting",
        "hint",
        "The loss was still falling at the end",
        f"The last quarter of the steps brought the held-back loss from {then:.4g} to {now:.4g}, {gain:.1%} less.",
        f"Train for longer: `--steps {2 * log.step[-1]:.0f}`. If it falls no further then, a larger network: "
        f"`--set network.hidden={2 * log.recipe.network.hidden}`.",
    )


def too_short(log: FitEvidence) -> Finding | None:
    """Too few checks."""
    if len(log.checks) >= 4:
        return None
    every = max(1, log.recipe.plan.check_every // 10)
    return Finding(
        "too_short",
        "hint",
        "Too few looks at the held-back data to judge how the fit went",
        f"{len(log.checks)} of them over {log.step[-1]:,.0f} steps; curves need 4 or more.",
        f"Train for longer, or look more often: `--set plan.check_every={every}`.",
    )


RULES: tuple[Rule, ...] = (not_finite, not_falling, overfitting, underfitting, too_short)
