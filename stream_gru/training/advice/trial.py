"""Advice tried on the user's own data: candidates fitted on what came first, judged on what came last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream_gru.columns import Floats
from stream_gru.errors import DataError
from stream_gru.models import bundle
from stream_gru.models.bundle import Bundle, Description
from stream_gru.models.forecaster import Forecaster
from stream_gru.training import data
from stream_gru.training.advice.advise import Advice, AdviceReason, Start, advise
from stream_gru.training.advice.traits import Traits
from stream_gru.training.comparison.skill import forecasts
from stream_gru.training.fit import fit
from stream_gru.training.prepare import Prepared, prepare
from stream_gru.training.recipe import Augment, Data, Recipe

_WINDOW_READINGS = 512  # readings of a window that is judged, or what there is
_CHECKED_SHARE = 0.15  # of the training part, its end: what a fit looks at to keep its best weights
_SURE_ERRORS = 2.0  # standard errors
_FEWEST_WINDOWS = 5  # windows that tell an error


@dataclass(frozen=True)
class Candidate:
    """A model to try. Without a recipe: the bundle as it is; with both: a fit that starts from the bundle."""

    name: str
    recipe: Recipe | None
    start: Bundle | None


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How a candidate did on the last part, in errors of repeating the last value."""

    name: str
    steps: tuple[int, ...]
    error: list[float]  # by step ahead, geometric mean over windows
    by_window: Floats  # (1 + K, N)


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """What is left of an advice."""

    advice: Advice  # the same, or the other one
    outcomes: list[TrialOutcome]  # of the advice, of the other one
    said: str


_NEXT: dict[Start, Start] = {"packaged": "fine-tune", "fine-tune": "packaged", "scratch": "fine-tune"}
_NAMES: dict[Start, str] = {
    "packaged": "the packaged model as it is",
    "fine-tune": "the packaged model, fine-tuned",
    "scratch": "a network of its own",
}


def verify(
    advice: Advice,
    history: data.SeriesCollection,
    traits: Traits,
    minutes: float,
    tell: Callable[[str], None] = lambda _: None,
) -> TrialVerdict:
    """Try an advice against the next best, for so many minutes together; what did better is taken.

    Where the difference may be chance the advice stays.
    """
    other = advise(traits, _NEXT[advice.start])
    both = [advice, other]
    fits = sum(one.start != "packaged" for one in both)
    candidates = [_candidate(one, minutes / fits) for one in both]
    first, second = try_out(candidates, history, advice.recipe.data.held_back, tell)
    gain, doubt = better(first, second)
    difference = f"{abs(gain):.1%} (± {doubt:.1%})" if np.isfinite(doubt) else f"{abs(gain):.1%}, on too few windows,"
    if gain > doubt:
        return TrialVerdict(
            advice, [first, second], f"Confirmed: its error is {difference} lower than of {second.name}."
        )
    if -gain > doubt:
        said = f"Overturned: the error of {second.name} is {difference} lower, so that is the advice now."
        why = f"its error in a back-test was {difference} lower than of {first.name}"
        reasons = [AdviceReason("start", second.name, why, "fair"), *other.reasons]
        return TrialVerdict(replace(other, reasons=reasons), [first, second], said)
    return TrialVerdict(
        advice, [first, second], f"Undecided: a difference of {difference} may be chance; the advice stays."
    )


def _candidate(advice: Advice, minutes: float) -> Candidate:
    name = _NAMES[advice.start]
    if advice.start == "packaged":
        return Candidate(name, None, bundle.load())
    plan = advice.recipe.plan.model_copy(update={"steps": None, "minutes": minutes})
    recipe = advice.recipe.model_copy(update={"plan": plan})
    return Candidate(name, recipe, bundle.load() if advice.start == "fine-tune" else None)


def try_out(
    candidates: Sequence[Candidate],
    history: data.SeriesCollection,
    held_back: float,
    tell: Callable[[str], None] = lambda _: None,
) -> list[TrialOutcome]:
    """Fit each candidate on all but the last `held_back` share of each series, and judge it there.

    Windows don't overlap, as far as possible. A series that stands still says nothing. Raises `DataError` when there
    is nothing to judge.
    """
    rest, test = history.split(held_back)
    learn, check = rest.split(_CHECKED_SHARE)
    outcomes = []
    for candidate in candidates:
        tell(candidate.name)
        description, forecaster = _model(candidate, learn, check)
        plan = Data(
            length=_WINDOW_READINGS,
            stride=_WINDOW_READINGS,
            batch=100_000,
            missing=description.missing,
            augment=Augment(),
            held_back=0.5,
        )
        windows = next(data.Recorded(test, plan).batches(np.random.default_rng(0)))
        prepared = prepare(windows, description)
        by_window = ratios(forecaster, prepared)
        if not by_window.shape[1]:
            raise DataError("nothing moves in the last part of the history: there is nothing to try a model on")
        error = [float(each) for each in np.exp(np.log(by_window).mean(1))]
        outcomes.append(TrialOutcome(candidate.name, forecaster.steps, error, by_window))
    return outcomes


def ratios(forecaster: Forecaster, prepared: Prepared) -> Floats:
    """The error of each moving window at each step ahead, divided by that of repeating the last value, (1 + K, N)."""
    known = ~prepared.target.isnan()
    target = prepared.target.nan_to_num()
    own = ((target - forecasts(forecaster, prepared)).abs() * known).sum(1)
    naive = target.abs().sum(1)
    moving = (naive > 0).all(0)
    found: Floats = (own[:, moving] / naive[:, moving]).clamp(1e-3, 1e3).double().numpy()
    return found


def better(first: TrialOutcome, second: TrialOutcome) -> tuple[float, float]:
    """How much lower the error of `first` is, a share of that of `second`, and give or take how much: two standard
    errors over windows, infinite for fewer than 5. On the steps ahead that both forecast; below 0: higher."""
    shared = [step for step in first.steps if step in second.steps]
    rows = [[outcome.steps.index(step) for step in shared] for outcome in (first, second)]
    gap = np.log(first.by_window[rows[0]]).mean(0) - np.log(second.by_window[rows[1]]).mean(0)
    error = float(gap.std(ddof=1) / len(gap) ** 0.5) if len(gap) >= _FEWEST_WINDOWS else float("inf")
    return 1 - float(np.exp(gap.mean())), _SURE_ERRORS * error


def _model(
    candidate: Candidate, learn: data.SeriesCollection, check: data.SeriesCollection
) -> tuple[Description, Forecaster]:
    recipe, start = candidate.recipe, candidate.start
    if recipe is None:
        if start is None:
            raise ValueError(f"{candidate.name} has neither a recipe nor a bundle")
        return start.description, start.forecaster
    description = data.describe(recipe, candidate.name, learn)
    made = fit(
        recipe, data.source(learn, recipe), data.held_back(check, recipe), description, start=start, device="cpu"
    )
    return made.description, made.forecaster
