from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from stream_gru.engine.stepper import Stepper
from stream_gru.errors import BundleError, SettingsError, StreamGruError, TrainingError
from stream_gru.models import bundle
from stream_gru.models.network import Network
from stream_gru.training import data, fit, recipe
from stream_gru.training.data.series import Series, SeriesCollection
from stream_gru.training.objective import Quality
from stream_gru.training.tuning import space, tune
from stream_gru.training.tuning import study as studies
from stream_gru.training.tuning.space import Choice, Range
from stream_gru.training.tuning.study import Search
from stream_gru.training.tuning.tune import SearchResult, Tried
from tests.support.command_line import stream_gru

BASE = recipe.load(
    None,
    {
        "network.hidden": 4,
        "horizons": [2, 4],
        "data.length": 32,
        "data.batch": 4,
        "data.scaling": "standard",
        "plan.steps": 4,
        "plan.check_every": 2,
        "plan.warm_up": 1,
    },
)
SIZES: space.Space = {"hidden": Choice((2, 3, 4, 6)), "learning_rate": Range(1e-3, 1e-1)}
Loss = Callable[[recipe.Recipe, int], float]


def history(n: int = 600) -> SeriesCollection:
    rng = np.random.default_rng(0)
    values = [10 + np.sin(np.arange(n) / (4 + k)) + rng.normal(0, 0.2, n) for k in range(2)]
    return SeriesCollection([Series(np.arange(n) * 60_000, value, name=str(k)) for k, value in enumerate(values)])


class FakeFit:
    """Fits whose losses are known: `loss(recipe, check)` at each of 5 checks, the last of which counts."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.fitted: list[recipe.Recipe] = []
        self.checks: list[int] = []  # of each fit
        self.windows: list[Any] = []
        self.between: Callable[[], None] = lambda: None

    def __call__(
        self,
        whole: recipe.Recipe,
        source: data.WindowSource,
        held_back: data.Windows,
        description: bundle.Description,
        *,
        stop: Callable[[fit.FitCheck], bool] | None = None,
        device: str = "auto",
    ) -> fit.Fitted:
        assert source.readings == 2 * 480  # the past alone
        self.fitted.append(whole)
        self.windows.append(held_back)
        stopped, loss = "steps", math.nan
        self.checks.append(0)
        for number in range(1, 6):
            loss = self.loss(whole, number)
            self.checks[-1] = number
            self.between()
            check = fit.FitCheck(number, 0.0, 0, loss, loss, 1e-3, 1.0, 1.0, 0, [loss / 10] * 3, [0.9] * 3)
            if stop is not None and stop(check):
                stopped = "pruned"
                break
        quality = Quality((1, 2, 4), [loss / 10] * 3, [0.9] * 3, loss)
        forecaster = bundle.build(description).eval()
        return fit.Fitted(description, forecaster, [], quality, quality, 0.0, number, 1, 0, stopped, None)


def by_size(whole: recipe.Recipe, check: int) -> float:
    """Best with 3 units; the rate hardly matters."""
    return abs(whole.network.hidden - 3) + 0.01 * math.log10(whole.plan.learning_rate) + 1 + 1 / check


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeFit:
    made = FakeFit(by_size)
    monkeypatch.setattr(fit, "fit", made)
    return made


def search(out: Path, dimensions: space.Space = SIZES, **options: Any) -> SearchResult:
    return tune.tune(BASE, dimensions, history(), Search(**{"pruner": "none", **options}), out, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_finds_what_is_best_and_leaves_its_bundle(
    tmp_path: Path, sampler: Literal["random", "tpe"], fake: FakeFit
) -> None:
    told: list[Tried] = []
    found = tune.tune(
        BASE, SIZES, history(), Search(sampler, "none", trials=15, seed=3), tmp_path / "best", tell=told.append
    )
    assert [one.number for one in told] == list(range(15))
    assert {one.chosen["hidden"] for one in told} == {2, 3, 4, 6}
    rates = [one.chosen["learning_rate"] for one in told]
    assert len(set(rates)) == 15
    assert all(1e-3 <= rate <= 1e-1 for rate in rates)
    assert found.before == 0
    values = [one.value for one in found.trials]
    assert values == sorted(by_size(whole, 5) for whole in fake.fitted)
    assert found.recipe.network.hidden == 3
    assert found.recipe.plan.learning_rate == found.trials[0].chosen["learning_rate"]
    assert not found.refitted
    assert len(fake.fitted) == 15  # the bundle is the trial's own
    assert Stepper(tmp_path / "best", capacity=1, device="cpu").bundle.description.network.hidden == 3
    training = found.bundle.description.training
    assert (training["trial"], training["loss"]) == (found.trials[0].number, found.trials[0].value)
    assert recipe.load(tmp_path / "best" / "recipe.toml") == found.recipe
    assert found.importance["hidden"] > 0.8
    assert sum(found.importance.values()) == pytest.approx(1)


def test_the_same_seed_proposes_the_same(tmp_path: Path, fake: FakeFit) -> None:
    first, second, other = (search(tmp_path / str(i), trials=4, seed=i // 2) for i in range(3))
    assert [one.chosen for one in first.trials] == [one.chosen for one in second.trials]
    assert [one.chosen for one in first.trials] != [one.chosen for one in other.trials]


def test_every_trial_is_judged_on_the_same_windows(tmp_path: Path, fake: FakeFit) -> None:
    search(tmp_path, {"length": Choice((16, 32, 64)), "batch": Choice((2, 8))}, sampler="grid")
    assert {(whole.data.length, whole.data.batch) for whole in fake.fitted} == {
        (length, batch) for length in (16, 32, 64) for batch in (2, 8)
    }
    assert all(windows is fake.windows[0] for windows in fake.windows)
    assert fake.windows[0].timestamp.min() >= 480 * 60_000  # later than what is learned
    assert fake.windows[0].value.shape[1] == BASE.data.length


@pytest.mark.slow
def test_a_grid_makes_each_combination_once(tmp_path: Path, fake: FakeFit) -> None:
    dimensions: space.Space = {"hidden": Choice((2,)), "layers": Range(1, 4), "dropout": Range(0.0, 0.5)}
    study = str(tmp_path / "study.db")
    first = search(tmp_path / "out", dimensions, sampler="grid", trials=5, storage=study)
    assert len(first.trials) == 5
    found = search(tmp_path / "out", dimensions, sampler="grid", storage=study)
    assert found.before == 5
    combinations = [tuple(one.chosen[name] for name in ("hidden", "layers", "dropout")) for one in found.trials]
    assert sorted(combinations) == [(2, n, d) for n in (1, 2, 4) for d in (0.0, 0.25, 0.5)]
    again = search(tmp_path / "out", dimensions, sampler="grid", storage=study)
    assert (again.before, len(again.trials), len(fake.fitted)) == (9, 9, 9)


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_a_trial_without_hope_is_ended_early(tmp_path: Path, fake: FakeFit, pruner: str) -> None:
    seen: list[int] = []

    def loss(whole: recipe.Recipe, check: int) -> float:
        if check == 1:
            seen.append(whole.network.hidden)
        return (50.0 if len(seen) > 12 else 1.0) + 1 / check

    fake.loss = loss
    found = search(tmp_path, pruner=pruner, trials=13)
    last = next(one for one in found.trials if one.number == 12)
    assert last.state == "pruned"
    assert fake.checks[12] < 5
    assert found.trials[0].state == "complete"
    assert fake.checks[found.trials[0].number] == 5
    fake.checks.clear()
    seen.clear()
    everything = search(tmp_path / "all", pruner="none", trials=13)
    assert {one.state for one in everything.trials} == {"complete"}
    assert fake.checks == [5] * 13


@pytest.mark.slow
def test_a_study_goes_on_under_its_name(tmp_path: Path, fake: FakeFit) -> None:
    study = f"sqlite:///{tmp_path / 'study.db'}"
    counts: list[int] = []

    def go(name: str, trials: int, out: str = "out") -> SearchResult:
        asked = Search("random", "none", trials=trials, name=name, storage=study)
        return tune.tune(BASE, SIZES, history(), asked, tmp_path / out, begin=counts.append)

    first = go("a", 6)
    second = go("a", 4)
    other = go("b", 1, "other")
    assert counts == [0, 6, 0]
    assert (first.before, second.before, other.before) == (0, 6, 0)
    assert [len(found.trials) for found in (first, second, other)] == [6, 10, 1]
    rates = [one.chosen["learning_rate"] for one in second.trials]
    assert len(set(rates)) == 10  # what was tried is not proposed again
    assert not second.refitted
    fits = len(fake.fitted)
    elsewhere = go("a", 1, "elsewhere")
    best_is_new = elsewhere.trials[0].number == 10
    assert elsewhere.refitted is not best_is_new
    assert len(fake.fitted) == fits + 1 + elsewhere.refitted
    assert fake.fitted[-1] == elsewhere.recipe
    assert elsewhere.bundle.description.training["trial"] == elsewhere.trials[0].number


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimensions": {"hidden": Choice((2, 3))}}, "another space: hidden 2,3,4,6, now 2,3"),
        ({"goal": "error"}, "another goal: loss, now error"),
        ({"base": BASE.model_copy(update={"horizons": (3,)})}, r"another recipe: horizons \[2, 4\], now \[3\]"),
        ({"history": history(700)}, "another history"),
    ],
)
def test_a_study_of_something_else_is_refused(
    tmp_path: Path, fake: FakeFit, change: dict[str, Any], message: str
) -> None:
    def go(**changes: Any) -> SearchResult:
        goal = changes.pop("goal", "loss")
        asked = {"base": BASE, "dimensions": SIZES, "history": history(), **changes}
        storage = str(tmp_path / "study.db")
        return tune.tune(**asked, search=Search("random", goal=goal, trials=1, storage=storage), out=tmp_path / "o")

    go()
    with pytest.raises(SettingsError, match=message):
        go(**change)
    assert len(fake.fitted) == 1


def test_a_study_that_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"study .*nowhere.* can't be opened: .*unable to open"):
        search(tmp_path, trials=1, storage=str(tmp_path / "nowhere" / "s.db"))
    with pytest.raises(SettingsError, match="can't be opened"):
        search(tmp_path, trials=1, storage="what://is/this")


@pytest.mark.parametrize("error", [TrainingError("20 batches skipped"), torch.OutOfMemoryError("20 batches skipped")])
def test_a_trial_that_fails_is_recorded(tmp_path: Path, fake: FakeFit, error: Exception) -> None:
    def loss(whole: recipe.Recipe, check: int) -> float:
        if whole.network.hidden == 3:
            raise error
        return by_size(whole, check)

    fake.loss = loss
    found = search(tmp_path, sampler="grid", dimensions={"hidden": Choice((2, 3, 6))})
    assert {one.chosen["hidden"]: (one.state, one.reason) for one in found.trials} == {
        2: ("complete", None),
        3: ("fail", "20 batches skipped"),
        6: ("complete", None),
    }
    assert found.recipe.network.hidden == 2
    with pytest.raises(TrainingError, match="none of 1 trials was finished; the first that failed: 20 batches"):
        search(tmp_path, sampler="grid", dimensions={"hidden": Choice((3,))})


def test_an_error_of_another_kind_ends_the_search(tmp_path: Path, fake: FakeFit) -> None:
    def loss(whole: recipe.Recipe, check: int) -> float:
        raise ZeroDivisionError

    fake.loss = loss
    with pytest.raises(ZeroDivisionError):
        search(tmp_path, trials=3)


def test_the_goal_may_be_the_error(tmp_path: Path, fake: FakeFit) -> None:
    found = search(tmp_path, {"hidden": Choice((3, 6))}, sampler="grid", goal="error")
    base = by_size(fake.fitted[0], 5) if fake.fitted[0].network.hidden == 3 else by_size(fake.fitted[1], 5)
    assert found.trials[0].value == pytest.approx(base / 10)
    assert found.bundle.description.training["error"] == found.trials[0].value


def test_time_ends_a_search_but_not_before_there_is_a_result(
    tmp_path: Path, fake: FakeFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def pass_time() -> None:
        now[0] += 50

    fake.between = pass_time
    monkeypatch.setattr(fake, "loss", lambda whole, check: 1.0)
    found = search(tmp_path, trials=3, minutes=1)
    assert [one.state for one in sorted(found.trials, key=lambda one: one.number)] == ["complete", "pruned", "pruned"]
    assert fake.checks == [5, 1, 1]


def test_real_fits_are_searched_and_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dimensions: space.Space = {"hidden": Choice((2, 4)), "length": Choice((16, 32))}
    found = search(tmp_path / "best", dimensions, sampler="grid")
    assert {one.state for one in found.trials} == {"complete"}
    assert {one.steps for one in found.trials} == {4}
    first, last = history().split(BASE.data.held_back)
    again = fit.fit(
        found.recipe,
        data.source(first, found.recipe),
        data.held_back(last, BASE),
        data.describe(found.recipe, "best", first),
        device="cpu",
    )
    assert again.quality.loss == found.trials[0].value
    made = bundle.load(tmp_path / "best").forecaster
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.forecaster.parameters(), strict=True))

    from optuna.pruners import ThresholdPruner

    monkeypatch.setattr(studies, "_pruner", lambda _: ThresholdPruner(upper=0))
    with pytest.raises(TrainingError, match="none of 1 trials was finished"):
        search(tmp_path / "none", trials=1)


def test_importance_needs_enough_trials_that_differ(tmp_path: Path, fake: FakeFit) -> None:
    assert search(tmp_path, trials=4).importance == {}
    fake.loss = lambda whole, check: 1.0
    assert search(tmp_path, trials=6).importance == {}
    fake.loss = lambda whole, check: float(whole.network.layers)
    fixed: space.Space = {"hidden": Choice((4,)), "layers": Choice((1, 2, 3))}
    assert list(search(tmp_path, fixed, trials=8, seed=1).importance) == ["layers"]


def test_trials_are_short_unless_the_recipe_says_otherwise() -> None:
    plain = tune.budget(recipe.load(None))
    assert (plain.plan.minutes, plain.plan.steps, plain.plan.check_every) == (1.0, None, 50)
    assert tune.budget(recipe.load(None, {"plan.minutes": 3.0}), 200).plan.model_dump() == {
        **recipe.FitPlan().model_dump(),
        "steps": 200,
        "check_every": 20,
    }
    own = recipe.load(None, {"plan.minutes": 3.0, "plan.check_every": 7})
    assert tune.budget(own) == own


def test_what_does_not_go_together_is_a_failed_trial(tmp_path: Path, fake: FakeFit) -> None:
    base = BASE.model_copy(update={"network": Network(hidden=4, transformer=4, heads=4)})
    asked = Search("random", "none", trials=12)
    found = tune.tune(base, {"hidden": Range(4, 16)}, history(), asked, tmp_path)
    for one in found.trials:
        assert (one.state == "fail") is bool(one.chosen["hidden"] % 4)
        assert one.state == "complete" or "do not divide" in str(one.reason)


def write(folder: Path) -> list[str]:
    rows = (f"{1_700_000_000 + 60 * i},{10 + math.sin(i / 4):.4f}" for i in range(500))
    (folder / "h.csv").write_text("\n".join(["t,x", *rows]))
    return ["tune", str(folder / "h.csv"), "--time", "t", "--value", "x", "--out", str(folder / "best")]


def run(*arguments: str) -> tuple[str, str]:
    result = stream_gru(*arguments)
    return result.stdout, result.stderr


def test_the_command_tunes_and_goes_on(tmp_path: Path) -> None:
    options = ["--hidden", "2,3", "--sampler", "grid", "--steps", "4", "--study", str(tmp_path / "s.db")]
    options += ["--layers", "1", "--learning-rate", "0.01", "-s", "data.length=32", "-s", "data.batch=4"]
    out, progress = run(*write(tmp_path), *options, "--trials", "1")
    assert "2 combinations" in progress
    assert "trial 0: complete, loss" in progress
    assert "1 trials: 1 complete" in out
    assert "best@" in out
    made, again = tmp_path / "best", tmp_path / "again"
    history = write(tmp_path)[1:-2]
    run("train", *history, "--out", str(again), "--scratch", "--recipe", str(made / "recipe.toml"))
    first, second = (bundle.load(folder).forecaster for folder in (made, again))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    out, progress = run(*write(tmp_path), *options, "--json")
    assert "goes on after 1 trials" in progress
    found = json.loads(out)
    assert found["before"] == 1
    assert {one["chosen"]["hidden"] for one in found["trials"]} == {2, 3}
    assert bundle.load(tmp_path / "best").name == found["bundle"]


def test_what_the_command_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write(tmp_path)
    with pytest.raises(StreamGruError, match="needs history"):
        run("tune", "--out", str(tmp_path))
    with pytest.raises(SettingsError, match="--learning-rate: 'fast' is no number"):
        run(*base, "--learning-rate", "fast")
    with pytest.raises(BundleError, match="there is no such setting"):
        run(*base, "--set", "network.width=3")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(TrainingError, match=r"pip install 'stream-gru\[training\]'"):
        run(*base)
