"""What a fit's log says, in plain words: pure rules on the checks and norms, each with its evidence and what to try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from stream_gru.batch import Floats
from stream_gru.training.norms import Norms
from stream_gru.training.objective import Quality
from stream_gru.training.recipe import Recipe

if TYPE_CHECKING:  # it brings lightning, which rules on numbers don't need
    from stream_gru.training.fit import Check

Severity = Literal["serious", "warning", "hint", "good"]
_ORDER: tuple[Severity, ...] = ("serious", "warning", "hint", "good")

_LEAST_FALL = 0.01  # of the first loss: the running loss of healthy fits wavers by less than this
_RISE = 0.05  # of the first loss: more than wavering, it goes the wrong way
_OVERFIT = 0.03  # held-back loss above its best: several times what it wavers by, since its windows stay the same
_OVERFIT_MUCH = 0.15
_STILL_FALLING = 0.02  # of the loss within the last quarter: as much again is likely for as many steps
_CUT = 10.0  # times the clipping norm: a step that was cut to a tenth is led by its largest outliers
_CUT_MUCH = 100.0
_VANISHED = 1e-3  # of the head's gradient, or of its own at first: the cell then learns a thousand times slower
_GROWN = 5.0  # times the first weights' norm: the heads begin near zero and alone make it grow by less than half of it
_SLOWED = 0.6  # of the speed at first: a shared machine varies by less
_MANY_SKIPPED = 0.01  # of the steps: about as rare as spikes in data; more means something systematic
_COVERAGE = 0.90  # of the interval, by its definition
_MISSED = 0.04  # off the coverage: the deviation over thousands of dependent readings is about 0.01
_MISSED_MUCH = 0.15
_HARDLY = 0.98  # of the last value's error: a gain below 2% may be chance


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the log shows."""

    kind: str  # what it is called, for programs
    severity: Severity
    what: str
    evidence: str  # with numbers
    try_next: str


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    checks: Sequence[Check]
    before: float  # loss on held-back data of the weights that the fit started with
    quality: Quality  # of the best weights
    norms: Norms | None = None
    recipe: Recipe = field(default_factory=Recipe)  # of which settings are suggested
    stopped: str = "steps"

    def column(self, name: str) -> Floats:
        """One field of all checks, (C,)."""
        return np.array([getattr(check, name) for check in self.checks], np.float64)

    @cached_property
    def step(self) -> Floats:
        """Steps done at the start, which is 0, and at each check, (1 + C,)."""
        return np.concatenate([[0.0], self.column("step")])

    @cached_property
    def loss(self) -> Floats:
        """Running training loss, (1 + C,); at the start that of the first check."""
        loss = self.column("loss")
        return np.concatenate([loss[:1], loss])

    @cached_property
    def held_back(self) -> Floats:
        """Loss on held-back data, (1 + C,)."""
        return np.concatenate([[self.before], self.column("held_back")])

    @cached_property
    def speed(self) -> Floats:
        """Readings a second between checks, (C,)."""
        return speed(self.checks)


def speed(checks: Sequence[Check]) -> Floats:
    """Readings learned from in a second, since the check before, (C,)."""
    seconds = np.diff([check.seconds for check in checks], prepend=0.0)
    readings = np.diff([float(check.readings) for check in checks], prepend=0.0)
    per_second: Floats = readings / np.maximum(seconds, 1e-9)
    return per_second


def diagnose(evidence: Evidence) -> list[Finding]:
    """What is wrong with a fit, the gravest first; if nothing is, the one finding says so."""
    with np.errstate(invalid="ignore"):
        found = [finding for rule in RULES if (finding := rule(evidence)) is not None]
    if not found:
        return [_healthy(evidence)]
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _healthy(log: Evidence) -> Finding:
    return Finding(
        "nothing",
        "good",
        "Nothing found",
        f"Over {len(log.checks)} checks the held-back loss went from {log.held_back[0]:.4g} to a best of "
        f"{np.nanmin(log.held_back):.4g}; gradients, weights, speed and intervals are as they should be.",
        "Use it. A larger network, more data or another variant may still be better: `stream-gru tune`, "
        "`stream-gru compare`.",
    )


def _too_short(log: Evidence) -> Finding | None:
    if len(log.checks) >= 4:
        return None
    every = max(1, log.recipe.plan.check_every // 10)
    return Finding(
        "too_short",
        "hint",
        "Too few looks at the held-back data to judge how the fit went",
        f"{len(log.checks)} of them over {log.step[-1]:,.0f} steps; curves need 4 or more.",
        f"Train for longer, or look more often: --set plan.check_every={every}.",
    )


def _not_finite(log: Evidence) -> Finding | None:
    bad = ~np.isfinite(log.held_back) | ~np.isfinite(log.loss)
    if not bad.any():
        return None
    return Finding(
        "not_finite",
        "serious",
        "The loss became infinite or not a number",
        f"At {bad.sum()} of {len(bad)} looks, first at step {log.step[bad][0]:,.0f}.",
        f"{_slower(log)} Look for impossible values in the data.",
    )


def _not_falling(log: Evidence) -> Finding | None:
    if not _stuck(log):
        return None
    late, late_held_back = _late(log.loss), _late(log.held_back)
    rising = late_held_back > (1 + _RISE) * log.before
    poor = not log.quality.error[0] < _HARDLY
    return Finding(
        "not_falling",
        "serious" if rising or poor else "hint",
        "The loss rises" if rising else "The loss does not fall",
        f"On held-back data it was {log.before:.4g} before the fit, {np.nanmin(log.held_back[1:]):.4g} at best and "
        f"{late_held_back:.4g} over the last checks; on training data {log.loss[0]:.4g} at the first check and "
        f"{late:.4g} over the last.",
        _slower(log)
        if rising or poor
        else "Nothing, if it began from weights that were good already; otherwise another learning rate than "
        f"{log.recipe.plan.learning_rate:g}, three times more and less.",
    )


def _stuck(log: Evidence) -> bool:
    """Whether it has learned nothing: a held-back loss that gained nothing may also be one that was overfitted."""
    if len(log.checks) < 2 or not np.isfinite(log.held_back[1:]).any():
        return False
    gained = np.nanmin(log.held_back[1:]) < (1 - _LEAST_FALL) * log.before
    late = _late(log.loss)
    learned = late < (1 - _LEAST_FALL) * log.loss[0] and late < (1 + _RISE) * log.before
    return not gained and not learned


def _overfitting(log: Evidence) -> Finding | None:
    if len(log.checks) < 4 or not np.isfinite(log.held_back).any() or _stuck(log):
        return None
    best = int(np.nanargmin(log.held_back))
    after = log.held_back[best + 1 :]
    if len(after) < 2:
        return None
    rise = _late(after) / log.held_back[best] - 1
    fall = 1 - _late(log.loss[best:]) / log.loss[best]
    if not (rise > _OVERFIT and fall > 0):
        return None
    plan, network = log.recipe.plan, log.recipe.network
    return Finding(
        "overfitting",
        "serious" if rise > _OVERFIT_MUCH else "warning",
        "Overfitting: it learns the training data by heart",
        f"The held-back loss was best at step {log.step[best]:,.0f}, {log.held_back[best]:.4g}, and ended {rise:.1%} "
        f"above that, while the training loss fell by {fall:.1%} more.",
        "The weights of the best step were kept, so the bundle is no worse for it. To gain: more data, "
        f"--set network.dropout=0.2, --set plan.weight_decay={plan.weight_decay * 5 or 0.05:g}, "
        f"--set data.augment.noise=0.3 or --set network.hidden={max(1, network.hidden // 2)}; "
        "--set plan.patience=5 saves the time.",
    )


def _underfitting(log: Evidence) -> Finding | None:
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
        f"Train for longer: --steps {2 * log.step[-1]:.0f}. If it falls no further then, a larger network: "
        f"--set network.hidden={2 * log.recipe.network.hidden}.",
    )


def _exploding_gradients(log: Evidence) -> Finding | None:
    norm, members = log.column("gradient_norm"), len(log.recipe.network.cells)
    clip = log.recipe.plan.clip * members**0.5  # each member is clipped on its own
    if not len(norm):
        return None
    late, largest = float(np.median(_half(norm))), float(np.nanmax(norm, initial=0.0))
    if not (late > _CUT * clip or largest > _CUT_MUCH * clip or ~np.isfinite(norm).all()):
        return None
    spikes = late <= _CUT * clip
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
            else f"{_slower(log)} Also --set plan.chunk={max(8, log.recipe.plan.chunk // 4)}, for gradients through "
            "fewer steps."
        ),
    )


def _vanishing_gradients(log: Evidence) -> Finding | None:
    if log.norms is None or len(log.norms.step) < 4:
        return None
    groups = log.norms.groups("gradient")
    heads = np.sqrt(sum((groups[name] ** 2 for name in groups if name.startswith("heads")), np.zeros(1)))
    worst: tuple[float, str, str] | None = None
    for name in log.norms.cells():
        own = groups[name]
        against_heads = float(np.median(_half(own) / np.maximum(_half(heads), 1e-30)))
        against_first = float(np.median(_half(own)) / max(float(np.median(own[: len(own) // 4 or 1])), 1e-30))
        for ratio, than in ((against_heads, "of the heads' norm"), (against_first, "of its own norm at first")):
            if ratio < _VANISHED and (worst is None or ratio < worst[0]):
                worst = ratio, name, than
    if worst is None:
        return None
    ratio, name, than = worst
    return Finding(
        "vanishing_gradients",
        "serious",
        "Gradients vanish before they reach the cell",
        f"In the second half of the fit the gradient of {name} was {ratio:.1g} {than}: "
        f"{np.median(_half(groups[name])):.2g} at the median.",
        "Units may be saturated: a lower learning rate, --set network.norm=layer. In a deep network: "
        "--set network.residual=true or fewer layers. With a plain RNN: gru or lstm, which carry gradients further.",
    )


def _exploding_weights(log: Evidence) -> Finding | None:
    norm = log.column("weight_norm")
    if len(norm) < 2:
        return None
    grown = _late(norm) / norm[0]
    if np.isfinite(norm).all() and grown <= _GROWN:
        return None
    where = ""
    if log.norms is not None and len(log.norms.step):
        last = {name: float(column[-1]) for name, column in log.norms.groups("weight").items()}
        where = f"; the largest part is {max(last, key=lambda name: last[name])}"
    return Finding(
        "exploding_weights",
        "serious",
        "Weights explode",
        f"Their norm went from {norm[0]:.3g} to {norm[-1]:.3g}{where}.",
        f"{_slower(log)} Or more decay: --set plan.weight_decay={max(0.05, 5 * log.recipe.plan.weight_decay):g}.",
    )


def _slow(log: Evidence) -> Finding | None:
    if len(log.checks) < 4:
        return None
    some = max(2, len(log.speed) // 4)
    first, last = float(np.median(log.speed[:some])), float(np.median(log.speed[-some:]))
    if last >= _SLOWED * first:
        return None
    return Finding(
        "slow",
        "warning",
        "Epochs became slow",
        f"From {first:,.0f} to {last:,.0f} readings a second, {last / first:.0%} of the speed at first.",
        "See what else runs on the machine, whether it is hot or short of memory (then a smaller data.batch); "
        "windows of very different lengths do it too: data.tokens evens out the work of a step.",
    )


def _skipped(log: Evidence) -> Finding | None:
    if not log.checks or not log.checks[-1].skipped:
        return None
    skipped, steps = log.checks[-1].skipped, log.checks[-1].step
    share = skipped / max(steps + skipped, 1)
    return Finding(
        "skipped_batches",
        "serious" if share > _MANY_SKIPPED else "warning",
        "Batches were skipped",
        f"{skipped} of {steps + skipped:,}: their loss or gradient was not finite.",
        "Look for values in the data that are no measurements (1e30, -999). "
        + ("With mixed precision some are usual at first. " if log.recipe.plan.precision != "32" else "")
        + (_slower(log) if share > _MANY_SKIPPED else ""),
    )


def _miscalibrated(log: Evidence) -> Finding | None:
    off = [coverage - _COVERAGE for coverage in log.quality.coverage]
    bad = [k for k, miss in enumerate(off) if not abs(miss) <= _MISSED]
    if not bad:
        return None
    worst = max(bad, key=lambda k: abs(off[k]))
    covered = ", ".join(f"{log.quality.coverage[k]:.1%} at {_ahead(log.quality.steps[k])}" for k in bad)
    return Finding(
        "miscalibrated",
        "serious" if abs(off[worst]) > _MISSED_MUCH else "warning",
        f"The 90% interval is too {'wide' if off[worst] > 0 else 'narrow'}",
        f"On held-back data it holds {covered}.",
        "The held-back part may differ from what came before it: more, or more recent, training data. Too narrow goes "
        "with overfitting as well; too wide with a fit that was too short or a series that hardly ever moves.",
    )


def _worse_than_last_value(log: Evidence) -> Finding | None:
    bad = [k for k, error in enumerate(log.quality.error) if not error < _HARDLY]
    if not bad:
        return None
    errors = ", ".join(f"{log.quality.error[k]:.3f} at {_ahead(log.quality.steps[k])}" for k in bad)
    return Finding(
        "worse_than_last_value",
        "serious" if any(not log.quality.error[k] < 1 for k in bad) else "warning",
        "No better than repeating the last value",
        f"Error divided by that of repeating the last value, on held-back data: {errors}.",
        "The series may be a random walk, which nothing forecasts better. Else train for longer, start from the "
        "package's bundle, or give the network more to go by: context.hour, context.weekday, covariates.",
    )


RULES: tuple[Callable[[Evidence], Finding | None], ...] = (
    _not_finite,
    _not_falling,
    _worse_than_last_value,
    _exploding_gradients,
    _vanishing_gradients,
    _exploding_weights,
    _overfitting,
    _underfitting,
    _miscalibrated,
    _skipped,
    _slow,
    _too_short,
)


def _half(values: Floats) -> Floats:
    """The second half."""
    return values[len(values) // 2 :]


def _late(curve: Floats) -> float:
    """Mean of the last quarter."""
    return float(curve[-max(1, len(curve) // 4) :].mean())


def _slower(log: Evidence) -> str:
    rate, warm_up = log.recipe.plan.learning_rate / 10, 2 * log.recipe.plan.warm_up or 60
    return f"Learn slower: --set plan.learning_rate={rate:g}, --set plan.warm_up={warm_up}."


def _ahead(steps: int) -> str:
    return f"{steps} step{'s' if steps > 1 else ''} ahead"
