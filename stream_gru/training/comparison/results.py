"""What was measured of some models on the same data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stream_gru.models.network import Network
from stream_gru.training.comparison.cost import Size


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """What a model costs. Times are seconds by round; the rounds of all models go together."""

    network: Network
    size: Size
    training_step: list[float]
    step: dict[int, list[float]]  # series at once -> network and heads
    engine: dict[int, list[float]]  # series at once -> everything, scores and rows included


@dataclass(frozen=True, slots=True)
class Trial:
    """One fit. Errors are divided by those of repeating the last value."""

    model: str
    seed: int
    share: float  # of the training part
    seconds: float
    steps: int
    error: list[float]  # by step ahead
    coverage: list[float]  # of the 90% intervals
    by_position: dict[int, float]
    reach: int  # readings
    reach_before: int  # with initial weights
    sensitivity: list[float]  # by reading back, relative to the largest


@dataclass(frozen=True, slots=True)
class Results:
    """All of it, and what it was measured on."""

    models: dict[str, ComparedModel]
    learned: dict[float, int]  # share of the training part -> its readings
    tested: int  # readings
    series: int
    ahead: tuple[int, ...]
    farthest: int  # readings back that the reach was looked for
    trials: list[Trial] = field(default_factory=list)

    @property
    def shares(self) -> list[float]:
        """Of the training part, the whole one last."""
        return sorted(self.learned)

    def of(self, model: str, share: float | None = None) -> list[Trial]:
        """The trials of a model by seed, on the whole training part or another share."""
        share = self.shares[-1] if share is None else share
        return sorted((t for t in self.trials if t.model == model and t.share == share), key=lambda trial: trial.seed)

    def errors(self, model: str, share: float | None = None) -> list[float]:
        """By seed, the geometric mean over the steps ahead."""
        return [float(np.exp(np.mean(np.log(trial.error)))) for trial in self.of(model, share)]

    def at_positions(self, model: str, positions: Collection[int]) -> list[float]:
        """By seed, the geometric mean of the errors at these positions; none if the windows were too short."""
        return [
            float(np.exp(np.mean([np.log(trial.by_position[position]) for position in positions])))
            for trial in self.of(model)
            if all(position in trial.by_position for position in positions)
        ]

    def reaches(self, model: str) -> tuple[list[int], list[int]]:
        """By seed, after and before the fit."""
        trials = self.of(model)
        return [trial.reach for trial in trials], [trial.reach_before for trial in trials]

    def plain(self) -> dict[str, Any]:
        """As what JSON knows."""
        tree = asdict(self)
        for name, model in self.models.items():
            tree["models"][name]["network"] = model.network.model_dump(mode="json")
        return tree
