"""Small fits, and looks at what became of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stream_gru.models import bundle
from stream_gru.training import data, fit, objective, recipe

SMALL: dict[str, Any] = {
    "network.hidden": 6,
    "horizons": [3, 6],
    "data.length": 48,
    "data.batch": 6,
    "plan.steps": 4,
    "plan.chunk": 48,
    "plan.warm_up": 0,
    "plan.schedule": "constant",
    "plan.check_every": 100,
    "plan.learning_rate": 1e-2,
}


def make(**changes: Any) -> recipe.Recipe:
    return recipe.load(None, {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}})


def describe(asked: recipe.Recipe) -> bundle.Description:
    return data.describe(asked, "small", None)


class Fixed:
    """The same batches over and over; `bad` says which of them are spoiled, see `spoil`."""

    readings = None

    def __init__(self, batches: Sequence[data.Windows]) -> None:
        self._batches = batches

    def batches(self, rng: np.random.Generator) -> Iterator[data.Windows]:
        while True:
            yield from self._batches

    def draw(self, n: int, length: int, rng: np.random.Generator) -> data.Windows:
        raise NotImplementedError


def batches(count: int, n: int = 6, length: int = 48, seed: int = 5) -> list[data.Windows]:
    rng = np.random.default_rng(seed)
    return [data.Synthetic().draw(n, length, rng) for _ in range(count)]


def run(asked: recipe.Recipe, source: data.WindowSource | None = None, **options: Any) -> fit.Fitted:
    held_back = data.Synthetic().draw(8, 48, np.random.default_rng(9))
    return fit.fit(asked, source or data.source(None, asked), held_back, describe(asked), device="cpu", **options)


def last(folder: Path) -> dict[str, Tensor]:
    """The weights that a fit ended with, be they the best or not."""
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("forecaster."): tensor for name, tensor in state.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def norm(gradients: dict[int, Tensor]) -> float:
    return math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))


def spoil(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool], how: str) -> None:
    """The loss of some portions, or only its gradient, is not a number."""
    real, count = objective.loss, 0

    def loss(forecaster: Any, forecast: Tensor, prepared: Any) -> Tensor:
        nonlocal count
        value = real(forecaster, forecast, prepared)
        if forecast.requires_grad:
            count += 1
            if bad(count):
                return value * math.nan if how == "loss" else value + (forecast * 0).abs().sqrt().sum()
        return value

    monkeypatch.setattr(objective, "loss", loss)
