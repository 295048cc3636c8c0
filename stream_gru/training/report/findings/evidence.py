"""What the rules look at, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from stream_gru.columns import Floats
from stream_gru.training.objective import Quality
from stream_gru.training.recipe import Recipe
from stream_gru.training.report.norms import Norms

if TYPE_CHECKING:  # it brings lightning, which rules on numbers don't need
    from stream_gru.training.fit import FitCheck

HARDLY = 0.98  # of the last value's error: a gain below 2% may be chance

Severity = Literal["serious", "warning", "hint", "good"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the log shows."""

    kind: str  # what it is called, for programs
    severity: Severity
    what: str
    evidence: str  # with numbers
    try_next: str


@dataclass(frozen=True)
class FitEvidence:
    """What the rules look at."""

    checks: Sequence[FitCheck]
    before: float  # loss on held-back data of the weights that the fit started with
    quality: Quality  # of the best weights
    norms: Norms | None = None
    recipe: Recipe = field(default_factory=Recipe)  # of which settings are suggested
    stopped: str = "steps"
    autocorrelation: Floats | None = None  # of one-step residuals at lags 1, 2...
    fresh: float | None = None  # norm of the network's weights as they are first drawn

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


Rule = Callable[[FitEvidence], Finding | None]


def speed(checks: Sequence[FitCheck]) -> Floats:
    """Readings learned from in a second, since the check before, (C,)."""
    seconds = np.diff([check.seconds for check in checks], prepend=0.0)
    readings = np.diff([float(check.readings) for check in checks], prepend=0.0)
    per_second: Floats = readings / np.maximum(seconds, 1e-9)
    return per_second


def second_half(values: Floats) -> Floats:
    """The second half."""
    return values[len(values) // 2 :]


def typical(values: Floats) -> float:
    """The median of the second half."""
    return float(np.median(second_half(values)))


def last_quarter(curve: Floats) -> float:
    """Mean of the last quarter."""
    return float(curve[-max(1, len(curve) // 4) :].mean())


def clipping(recipe: Recipe) -> float:
    """The norm that gradients are clipped to, all together: each member of an ensemble is clipped on its own."""
    return float(recipe.plan.clip * len(recipe.network.cells) ** 0.5)


def slower(log: FitEvidence) -> str:
    """The advice that is first in most cases."""
    rate, warm_up = log.recipe.plan.learning_rate / 10, 2 * log.recipe.plan.warm_up or 60
    return f"Learn slower: `--set plan.learning_rate={rate:g}`, `--set plan.warm_up={warm_up}`."


def ahead(steps: int) -> str:
    """In words."""
    return f"{steps} step{'s' if steps > 1 else ''} ahead"
