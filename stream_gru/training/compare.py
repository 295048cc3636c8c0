"""Models on the same data, by the same plan: what they cost, how well they do, how far back they reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stream_gru.errors import BundleError
from stream_gru.models import bundle
from stream_gru.models.bundle import Description
from stream_gru.models.forecaster import Forecaster
from stream_gru.training import data, recipe
from stream_gru.training.comparison import cost, skill
from stream_gru.training.comparison.reach import FARTHEST, reach, sensitivity
from stream_gru.training.comparison.results import ComparedModel, Results, Trial
from stream_gru.training.data.windows import Windows
from stream_gru.training.fit import fit
from stream_gru.training.module import initialise
from stream_gru.training.objective import evaluate
from stream_gru.training.prepare import Prepared, prepare
from stream_gru.training.recipe import Recipe

DEFAULT = ("gru", "lstm", "rnn")
SHARES = (0.1, 0.3, 1.0)  # of the training part
_CHECKED_SHARE = 0.15  # of the training part, its end: what a fit looks at to keep its best weights
_TEST_WINDOWS = 256  # that errors are measured on
_REACH_WINDOWS = 64  # that the reach of the memory is, which takes a gradient for each


@dataclass(frozen=True, slots=True)
class Study:
    """How thorough a comparison is."""

    seeds: int = 3
    shares: tuple[float, ...] = SHARES
    rounds: int = 31  # of each timing
    batches: tuple[int, ...] = cost.BATCHES
    device: str = "cpu"


def recipes(models: Sequence[str], assignments: Mapping[str, object]) -> dict[str, Recipe]:
    """Recipes by name, from names of variants or files, with the same changes to all.

    Raises `BundleError` for what is wrong with one, and when their errors would not be of the same steps ahead.
    """
    found: dict[str, Recipe] = {}
    for model in models:
        name = Path(model).stem if model.endswith(".toml") else model
        if name in found:
            raise BundleError(f"two models are called {name}; give each recipe a file name of its own")
        found[name] = recipe.load(model, dict(assignments))
    different = {one.horizons for one in found.values()}
    if len(different) > 1:
        shown = "; ".join(f"{name} {list(one.horizons)}" for name, one in found.items())
        raise BundleError(f"models are compared on the same steps ahead, but their horizons are: {shown}")
    return found


def compare(
    models: Mapping[str, Recipe],
    history: data.SeriesCollection,
    study: Study,
    tell: Callable[[str], None] = lambda _: None,
) -> Results:
    """Measure. The end of each series is the test part; the data settings that make it are those of the first model.

    A fit sees neither the test part nor, but to keep its best weights, the end of what comes before it.
    """
    first = next(iter(models.values()))
    rest, test = history.split(first.data.held_back)
    learn, check = rest.split(_CHECKED_SHARE)
    parts = {share: learn.between(1 - share, 1) for share in sorted(study.shares)}  # the latest: nearest to the test
    results = Results(
        costs(models, learn, study, tell),
        {share: len(part) for share, part in parts.items()},
        len(test),
        len(history.series),
        (1, *first.horizons),
        FARTHEST,
    )
    windows = {name: data.held_back(test, _long(one), _TEST_WINDOWS) for name, one in models.items()}
    for seed in range(study.seeds):
        for share, part in parts.items():
            for name, one in models.items():
                tell(f"{name}, seed {seed + 1} of {study.seeds}, {share:.0%} of the data")
                trial = _Plan(name, _seeded(one, seed), share, study.device)
                results.trials.append(_trial(trial, part, check, windows[name]))
    return results


def costs(
    models: Mapping[str, Recipe],
    learn: data.SeriesCollection,
    study: Study,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, ComparedModel]:
    """Sizes and timings, with initial weights: what the weights are changes no time."""
    tell("the time of a step")
    clock = cost.clock(study.device, torch.get_num_threads())
    sizes, tasks = {}, dict[tuple[str, int], dict[str, cost.Task]]()
    for name, one in models.items():
        description = data.describe(one, name, learn)
        portion = _portion(one, description, learn, study.device)
        sizes[name] = cost.size(description, _initial(one, description).to(study.device), portion)
        trained = _initial(one, description).to(study.device)
        served = _initial(one, description).to(study.device).eval().requires_grad_(False)
        tasks.setdefault(("train", 0), {})[name] = cost.training_step(trained, portion)
        for batch in study.batches:
            tasks.setdefault(("step", batch), {})[name] = cost.streaming_step(served, batch)
            tasks.setdefault(("engine", batch), {})[name] = cost.engine_step(description, served, batch)
    seconds = {what: cost.interleaved(each, study.rounds, clock) for what, each in tasks.items()}
    return {
        name: ComparedModel(
            one.network,
            sizes[name],
            seconds["train", 0][name],
            {batch: seconds["step", batch][name] for batch in study.batches},
            {batch: seconds["engine", batch][name] for batch in study.batches},
        )
        for name, one in models.items()
    }


class _Plan(NamedTuple):
    name: str
    recipe: Recipe
    share: float
    device: str


def _trial(plan: _Plan, part: data.SeriesCollection, check: data.SeriesCollection, windows: Windows) -> Trial:
    planned = plan.recipe
    description = data.describe(planned, plan.name, part)
    before = _initial(planned, description)
    clock = cost.clock(plan.device, torch.get_num_threads())
    began = clock()
    made = fit(planned, data.source(part, planned), data.held_back(check, planned), description, device=plan.device)
    seconds = clock() - began
    forecaster = made.forecaster.cpu()
    prepared = prepare(windows, made.description)
    quality = evaluate(forecaster, prepared)
    x = _whole(prepared, windows)
    curve = sensitivity(forecaster.network, x)
    return Trial(
        plan.name,
        planned.plan.seed,
        plan.share,
        seconds,
        made.steps,
        quality.error,
        quality.coverage,
        skill.by_position(skill.forecasts(forecaster, prepared), prepared.target),
        reach(curve),
        reach(sensitivity(before.network, x)),
        [float(f"{value:.4g}") for value in curve / max(curve.max(), 1e-30)],
    )


def _seeded(one: Recipe, more: int) -> Recipe:
    return one.model_copy(update={"plan": one.plan.model_copy(update={"seed": one.plan.seed + more})})


def _initial(one: Recipe, description: Description) -> Forecaster:
    """What `fit` begins with."""
    with torch.random.fork_rng([]):
        torch.manual_seed(one.plan.seed)
        forecaster = bundle.build(description)
        initialise(forecaster, one.plan.init)
    return forecaster


def _long(one: Recipe) -> Recipe:
    """With windows that the last of the positions fits into."""
    length = round(max(skill.POSITIONS) * 1.25) + max(one.horizons) + 1
    return one.model_copy(update={"data": one.data.model_copy(update={"length": length})})


def _portion(one: Recipe, description: Description, learn: data.SeriesCollection, device: str) -> Prepared:
    """What one step of a fit learns from: the first chunk of a batch."""
    windows = data.held_back(learn, one, one.data.batch)
    return next(prepare(windows, description, device).split(one.plan.chunk, -2))


def _whole(prepared: Prepared, windows: Windows) -> Tensor:
    """Inputs (T, n, D) of some windows without padding: those that the reach fits into, if there are any."""
    enough = np.flatnonzero(windows.length > min(FARTHEST, int(windows.length.max()) - 1))[:_REACH_WINDOWS]
    shortest = int(windows.length[enough].min())
    return prepared.x[:, :shortest, torch.from_numpy(enough)].movedim(0, 2)
