"""Search for a better recipe with optuna: each trial is a fit on the past, judged on held-back data after it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stream_gru.errors import BundleError, TrainingError
from stream_gru.models import bundle as bundles
from stream_gru.settings import toml
from stream_gru.training import data, fit
from stream_gru.training.data.series import SeriesCollection
from stream_gru.training.recipe import Recipe
from stream_gru.training.tuning import space
from stream_gru.training.tuning.space import Number, Space
from stream_gru.training.tuning.study import Search, opened

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

RECIPE = "recipe.toml"
_ENOUGH_TRIALS = 5  # finished trials before the importance of a setting is told


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial."""

    number: int
    state: str  # complete, pruned, fail, running
    value: float | None  # the goal; smaller is better
    chosen: dict[str, Number]
    steps: int | None
    seconds: float
    reason: str | None  # why it failed


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The end of a search."""

    before: int  # trials that earlier runs made
    trials: list[Tried]  # all of them, the finished ones first and of these the best
    recipe: Recipe  # of the best
    bundle: bundles.Bundle
    refitted: bool  # the best was found in an earlier run whose bundle is not here
    importance: dict[str, float] = field(default_factory=dict)  # share of each dimension in what differs, if known


def budget(base: Recipe, steps: int | None = None) -> Recipe:
    """`base` for trials: `steps` each, or what its plan says, or a minute; looked at more often than a long fit."""
    plan = base.plan
    if steps is not None:
        plan = plan.model_copy(update={"steps": steps, "minutes": None})
    elif plan.steps is None and plan.minutes is None:
        plan = plan.model_copy(update={"minutes": 1.0})
    if "check_every" not in plan.model_fields_set:
        plan = plan.model_copy(update={"check_every": 50 if plan.steps is None else max(1, plan.steps // 10)})
    return base.model_copy(update={"plan": plan})


def tune(
    base: Recipe,
    dimensions: Space,
    history: SeriesCollection,
    search: Search,
    out: Path,
    *,
    begin: Callable[[int], None] = lambda _: None,
    tell: Callable[[Tried], None] = lambda _: None,
    device: str = "auto",
) -> SearchResult:
    """Search, and leave the best trial's bundle with its recipe in `out`.

    All trials learn from the same part of the history and are judged on the same windows of the rest of it, whatever
    their own batches and windows are. `begin` gets the number of trials that the study held before, `tell` every trial
    at its end. Raises `SettingsError` for what can't be searched, and `TrainingError` when no trial was finished.
    """
    space.check(dimensions, base)
    first, last = history.split(base.data.held_back)
    windows = data.held_back(last, base, seed=base.plan.seed)

    def learn(recipe: Recipe, stop: Callable[[fit.FitCheck], bool] | None = None) -> fit.Fitted:
        description = data.describe(recipe, out.resolve().name, first)
        return fit.fit(recipe, data.source(first, recipe), windows, description, stop=stop, device=device)

    problem = {
        "space": {name: str(values) for name, values in dimensions.items()},
        "recipe": base.model_dump(mode="json"),
        "goal": search.goal,
        "history": [len(history.series), len(history)],
    }
    with opened(search, dimensions, problem) as study:
        before = len(study.trials)
        begin(before)
        run = _Run(study, base, dimensions, search, out, learn)
        run.go(tell)
        best, refitted = run.best()
        return SearchResult(
            before,
            sorted(map(_tried, study.trials), key=lambda one: (one.state != "complete", _or_inf(one.value))),
            space.recipe(base, best.params),
            bundles.load(out),
            refitted,
            importance(study, search.seed),
        )


@dataclass(slots=True)
class _Run:
    """One run of a study."""

    study: Study
    base: Recipe
    dimensions: Space
    search: Search
    out: Path
    learn: Callable[..., fit.Fitted]
    deadline: float = math.inf

    def go(self, tell: Callable[[Tried], None]) -> None:
        """Make the trials."""
        from optuna.samplers import GridSampler

        search, seconds = self.search, self.search.minutes and self.search.minutes * 60
        if isinstance(self.study.sampler, GridSampler) and self.study.sampler.is_exhausted(self.study):
            return  # else it would try a combination again
        endless = search.trials is None and seconds is None and search.sampler != "grid"
        if seconds is not None:
            self.deadline = time.monotonic() + seconds
        self.study.optimize(
            self.trial,
            n_trials=20 if endless else search.trials,
            timeout=seconds,
            catch=(TrainingError, BundleError, torch.OutOfMemoryError),
            callbacks=[lambda _, trial: tell(_tried(trial))],
        )

    def trial(self, trial: Trial) -> float:
        """One fit. Returns the goal; the bundle is written if it is the best one so far."""
        from optuna import TrialPruned

        def hopeless(check: fit.FitCheck) -> bool:
            trial.report(self.goal(check.held_back, check.error), check.step)
            late = time.monotonic() > self.deadline and self.lowest() < math.inf
            return late or trial.should_prune()

        try:
            recipe = space.recipe(self.base, space.suggest(trial, self.dimensions))
            fitted = self.learn(recipe, hopeless)
        except (TrainingError, BundleError, torch.OutOfMemoryError) as error:
            trial.set_user_attr("reason", str(error))
            raise
        trial.set_user_attr("steps", fitted.steps)
        if fitted.stopped == "pruned":
            raise TrialPruned
        value = self.goal(fitted.quality.loss, fitted.quality.error)
        if value < self.lowest():
            self.export(recipe, fitted, trial.number, value)
        return value

    def goal(self, loss: float, error: list[float]) -> float:
        """What is minimised."""
        return loss if self.search.goal == "loss" else math.exp(sum(map(math.log, error)) / len(error))

    def lowest(self) -> float:
        """The best value of the trials that are finished."""
        from optuna.trial import TrialState

        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return min((_or_inf(trial.value) for trial in done), default=math.inf)

    def best(self) -> tuple[FrozenTrial, bool]:
        """The best trial, with its bundle in `out`; whether it had to be fitted again for that."""
        if self.lowest() == math.inf:
            reasons = [trial.user_attrs["reason"] for trial in self.study.trials if "reason" in trial.user_attrs]
            why = f"; the first that failed: {reasons[0]}" if reasons else ""
            raise TrainingError(f"none of {len(self.study.trials)} trials was finished{why}")
        best = self.study.best_trial
        value = self.study.best_value
        mark = self.mark(best.number, value)
        try:
            training = bundles.load(self.out).description.training
        except BundleError:
            training = {}
        if all(training.get(name) == expected for name, expected in mark.items()):
            return best, False
        recipe = space.recipe(self.base, best.params)
        self.export(recipe, self.learn(recipe), best.number, value)
        return best, True

    def mark(self, number: int, value: float) -> dict[str, Any]:
        """What a bundle says of the trial that it comes from."""
        return {"study": self.study.study_name, "trial": number, self.search.goal: value}

    def export(self, recipe: Recipe, fitted: fit.Fitted, number: int, value: float) -> None:
        """Write bundle and recipe."""
        training = {
            "source": "history",
            **self.mark(number, value),
            "steps": fitted.steps,
            "readings": fitted.readings,
            "seed": recipe.plan.seed,
            "error_of_last_value": [round(error, 3) for error in fitted.quality.error],
            "coverage": [round(share, 3) for share in fitted.quality.coverage],
        }
        description = fitted.description.model_copy(update={"training": training})
        bundles.save(self.out, description, fitted.forecaster)
        (self.out / RECIPE).write_text("\n".join(toml.lines(recipe.model_dump(mode="json"))) + "\n")


def importance(study: Study, seed: int) -> dict[str, float]:
    """How much of what differs between finished trials each dimension explains (fANOVA: Hutter et al., 2014).

    Empty when there are too few trials or they are all alike.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = [name for name in done[0].params if len({trial.params[name] for trial in done}) > 1] if done else []
    if len(done) < _ENOUGH_TRIALS or not varied or len({trial.value for trial in done}) < 2:
        return {}
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed), params=varied)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _tried(trial: FrozenTrial) -> Tried:
    return Tried(
        trial.number,
        trial.state.name.lower(),
        trial.value,
        trial.params,
        trial.user_attrs.get("steps"),
        trial.duration.total_seconds() if trial.duration else 0.0,
        trial.user_attrs.get("reason"),
    )


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
