"""How the learning rate goes: a linear warm-up, then the shape that the plan names."""

from __future__ import annotations

import math

from stream_gru.training.recipe import FitPlan


def warm_up(step: int, steps: int) -> float:
    """From 1 / steps to 1 in `steps` steps; `step` counts from 0."""
    return min(1.0, (step + 1) / steps) if steps else 1.0


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, without restarts); `progress` is 0-1."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def gains(now: float, best: float, least: float) -> bool:
    """Whether a loss is below the best by at least the share `least` of it. NaN never is."""
    return now < best - least * abs(best) if math.isfinite(best) else math.isfinite(now)


class Schedule:
    """The learning rate of each step, as a share of the plan's.

    cosine follows the progress of the fit, be it measured in steps or in minutes; step multiplies by `decay` after
    every `decay_every` steps, exponential does so little by little; plateau does it once the held-back loss has not
    gained for so many steps; constant leaves it.
    """

    def __init__(self, plan: FitPlan) -> None:
        self._plan = plan
        self._best = math.inf
        self._since = 0  # the step of the last gain, or of the last drop
        self._drops = 0

    def factor(self, step: int, progress: float) -> float:
        """For the step after `step` ones."""
        return warm_up(step, self._plan.warm_up) * self._shape(step, progress)

    def _shape(self, step: int, progress: float) -> float:
        decay, every = self._plan.decay, self._plan.decay_every
        match self._plan.schedule:
            case "cosine":
                return cosine(progress)
            case "step":
                return float(decay ** (step // every))
            case "exponential":
                return float(decay ** (step / every))
            case "plateau":
                return float(decay**self._drops)
            case "constant":
                return 1.0

    def look(self, step: int, held_back: float) -> None:
        """The held-back loss after `step` steps."""
        if gains(held_back, self._best, self._plan.min_gain):
            self._best, self._since = held_back, step
        elif step - self._since >= self._plan.decay_every:
            self._drops, self._since = self._drops + 1, step

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"best": self._best, "since": self._since, "drops": self._drops}

    def restore(self, state: dict[str, float]) -> None:
        """From a checkpoint."""
        self._best, self._since, self._drops = state["best"], int(state["since"]), int(state["drops"])
