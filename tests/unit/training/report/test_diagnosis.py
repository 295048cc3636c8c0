from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stream_gru.models.context import Context
from stream_gru.models.network import Network
from stream_gru.training import data, fit, report
from stream_gru.training import recipe as recipes
from stream_gru.training.data.series import Series, SeriesCollection
from stream_gru.training.fit import FitCheck, Fitted
from stream_gru.training.objective import Quality
from stream_gru.training.recipe import FitPlan, Recipe
from stream_gru.training.report.diagnosis import RULES, Finding, FitEvidence, diagnose
from stream_gru.training.report.norms import Norms

N = 12  # checks
GOOD = Quality((1, 12), [0.6, 0.7], [0.9, 0.89], 1.0)


def checks(
    *,
    loss: np.ndarray | None = None,
    held_back: np.ndarray | None = None,
    gradient: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    speed: np.ndarray | None = None,
    skipped: int = 0,
) -> list[FitCheck]:
    """A healthy log, but for what is given."""
    fall = 1 + np.exp(-np.arange(1, N + 1) / 1.5)  # levels off at 1
    loss = fall + 0.05 if loss is None else loss
    held_back = fall if held_back is None else held_back
    gradient = 0.3 + 2 * np.exp(-np.arange(N) / 2) if gradient is None else gradient
    weight = np.linspace(19, 22, N) if weight is None else weight
    seconds = np.cumsum(10_000 / (np.full(N, 50_000.0) if speed is None else speed))
    return [
        FitCheck(
            step=100 * (i + 1),
            seconds=float(seconds[i]),
            readings=10_000 * (i + 1),
            loss=float(loss[i]),
            held_back=float(held_back[i]),
            learning_rate=3e-3,
            gradient_norm=float(gradient[i]),
            weight_norm=float(weight[i]),
            skipped=skipped,
            error=[0.6, 0.7],
            coverage=[0.9, 0.89],
        )
        for i in range(len(loss))
    ]


def norms(cell: np.ndarray, heads: np.ndarray) -> Norms:
    gradient = {"network.start": 0.1 * cell, "network.recurrent": cell, "heads.0.weight": heads}
    return Norms(
        np.linspace(10.0, 10.0 * len(cell), len(cell)), gradient, {name: np.full(len(cell), 4.0) for name in gradient}
    )


HEALTHY = FitEvidence(checks(), 3.0, GOOD, norms(np.full(40, 0.1), np.full(40, 0.4)), fresh=19.0)


def kinds(evidence: FitEvidence) -> list[str]:
    return [finding.kind for finding in diagnose(evidence)]


def finding(evidence: FitEvidence, kind: str) -> Finding:
    return next(finding for finding in diagnose(evidence) if finding.kind == kind)


def test_of_a_healthy_fit_it_says_that_nothing_was_found() -> None:
    (only,) = diagnose(HEALTHY)
    assert (only.kind, only.severity) == ("nothing", "good")
    assert "from 3 to a best of 1;" in only.evidence


@pytest.mark.parametrize("better", [0.55, 0.97])
def test_no_rule_fires_on_healthy_logs_of_other_sizes(better: float) -> None:
    quality = Quality((1,), [better], [0.93], 1.0)
    members = Recipe(network=Network(cells=("gru",) * 5))
    assert kinds(replace(HEALTHY, quality=quality, recipe=members)) == ["nothing"]


def test_a_loss_that_stays_where_it_was() -> None:
    flat = np.full(N, 3.0)
    log = replace(HEALTHY, checks=checks(loss=flat, held_back=flat + 0.01), quality=replace(GOOD, error=[1.3, 1.1]))
    found = finding(log, "not_falling")
    assert found.severity == "serious"
    assert "3 before the fit" in found.evidence
    assert "plan.learning_rate=0.0003" in found.try_next
    assert "overfitting" not in kinds(log)


def test_a_fit_that_ended_in_its_warm_up_needs_more_steps_not_smaller_ones() -> None:
    flat = np.full(N, 3.0)
    log = replace(
        HEALTHY,
        checks=checks(loss=flat, held_back=flat),
        quality=replace(GOOD, error=[1.3, 1.1]),
        recipe=Recipe(plan=FitPlan(warm_up=2000)),
    )
    advice = finding(log, "not_falling").try_next
    assert "--steps 20000" in advice
    assert "learning_rate" not in advice


def test_a_loss_that_stays_good_is_but_a_hint() -> None:
    flat = np.full(N, 1.0)
    log = replace(HEALTHY, before=1.0, checks=checks(loss=flat, held_back=flat))
    assert finding(log, "not_falling").severity == "hint"


def test_a_loss_that_rises_is_no_overfitting_though_it_comes_down_again() -> None:
    """After steps that are far too large the training loss falls from one that is worse than that before the fit."""
    loss = np.linspace(9, 6, N)
    found = diagnose(replace(HEALTHY, checks=checks(loss=loss, held_back=loss)))
    assert found[0].kind == "not_falling"
    assert found[0].severity == "serious"
    assert "rises" in found[0].what
    assert "overfitting" not in {finding.kind for finding in found}


def test_a_loss_that_is_no_number() -> None:
    loss = np.where(np.arange(N) < 5, 1.5, np.nan)
    found = finding(replace(HEALTHY, checks=checks(loss=loss, held_back=loss)), "not_finite")
    assert found.severity == "serious"
    assert "7 of 13" in found.evidence
    assert "step 600" in found.evidence


@pytest.mark.parametrize(("rise", "severity"), [(0.08, "warning"), (0.6, "serious")])
def test_overfitting(rise: float, severity: str) -> None:
    loss = np.linspace(2, 0.5, N)
    held_back = np.concatenate([np.linspace(2, 1, 4), np.linspace(1, 1 + rise, N - 4)])
    found = finding(replace(HEALTHY, checks=checks(loss=loss, held_back=held_back)), "overfitting")
    assert found.severity == severity
    assert "step 400" in found.evidence


def test_overfitting_from_the_first_check_on() -> None:
    loss = np.linspace(0.9, 0.4, N)
    log = replace(HEALTHY, before=1.0, checks=checks(loss=loss, held_back=np.linspace(1.02, 1.5, N)))
    assert "best at step 0" in finding(log, "overfitting").evidence


def test_held_back_loss_that_wavers_is_no_overfitting() -> None:
    waver = 1 + 0.01 * np.sin(np.arange(N))
    assert kinds(replace(HEALTHY, checks=checks(held_back=waver))) == ["nothing"]


def test_a_loss_that_was_still_falling_at_the_end() -> None:
    fall = np.linspace(2.9, 1.5, N)
    log = replace(HEALTHY, checks=checks(loss=fall, held_back=fall))
    found = finding(log, "underfitting")
    assert found.severity == "hint"
    assert "--steps 2400" in found.try_next
    assert "underfitting" not in kinds(replace(log, stopped="patience"))


@pytest.mark.parametrize(("members", "norm", "found"), [(1, 15.0, True), (5, 15.0, False), (5, 30.0, True)])
def test_exploding_gradients_against_the_norm_that_each_member_is_clipped_to(
    members: int, norm: float, found: bool
) -> None:
    recipe = Recipe(network=Network(cells=("gru",) * members), plan=FitPlan(clip=1.0))
    log = replace(HEALTHY, recipe=recipe, checks=checks(gradient=np.full(N, norm)))
    assert ("exploding_gradients" in kinds(log)) is found


def test_gradients_that_explode_now_and_then() -> None:
    gradient = np.where(np.arange(N) == 8, 500.0, 0.5)
    found = finding(replace(HEALTHY, checks=checks(gradient=gradient)), "exploding_gradients")
    assert found.severity == "warning"
    assert "500" in found.evidence


def test_gradients_that_are_no_numbers() -> None:
    assert "exploding_gradients" in kinds(replace(HEALTHY, checks=checks(gradient=np.full(N, np.inf))))


def test_gradients_that_do_not_reach_the_cell() -> None:
    log = replace(HEALTHY, norms=norms(np.full(40, 1e-5), np.full(40, 0.4)))
    found = finding(log, "vanishing_gradients")
    assert "of network was" in found.evidence
    assert "of the heads'" in found.evidence


def test_gradients_of_the_cell_that_fall_by_orders() -> None:
    both = np.geomspace(1, 1e-6, 40)
    assert "vanishing_gradients" in kinds(replace(HEALTHY, norms=norms(both, both)))


def test_gradients_that_vanish_altogether_need_no_log_of_norms() -> None:
    log = replace(HEALTHY, norms=None, checks=checks(gradient=np.array([0.4] + [1e-9] * (N - 1))))
    assert "all parameters" in finding(log, "vanishing_gradients").evidence


def test_exploding_weights() -> None:
    log = replace(HEALTHY, checks=checks(weight=np.geomspace(20, 400, N)))
    found = finding(log, "exploding_weights")
    assert "from 19 to 400" in found.evidence
    assert "network" in found.evidence


def test_weights_that_exploded_before_the_first_check() -> None:
    log = replace(HEALTHY, checks=checks(weight=np.full(N, 500.0)))
    assert "exploding_weights" in kinds(log)
    assert "exploding_weights" not in kinds(replace(log, fresh=None))


def test_epochs_that_become_slow() -> None:
    speed = np.where(np.arange(N) < 6, 50_000.0, 10_000.0)
    found = finding(replace(HEALTHY, checks=checks(speed=speed)), "slow")
    assert "From 50,000 to 10,000 readings a second, 20%" in found.evidence
    faster = np.where(np.arange(N) < 3, 20_000.0, 50_000.0)  # the first ones carry what is done once
    assert kinds(replace(HEALTHY, checks=checks(speed=faster))) == ["nothing"]


@pytest.mark.parametrize(("count", "severity"), [(1, "warning"), (60, "serious")])
def test_skipped_batches(count: int, severity: str) -> None:
    found = finding(replace(HEALTHY, checks=checks(skipped=count)), "skipped_batches")
    assert found.severity == severity
    assert f"{count} of" in found.evidence


@pytest.mark.parametrize(
    ("coverage", "severity", "word"),
    [(0.84, "warning", "narrow"), (0.4, "serious", "narrow"), (0.99, "warning", "wide")],
)
def test_miscalibrated_intervals(coverage: float, severity: str, word: str) -> None:
    found = finding(replace(HEALTHY, quality=replace(GOOD, coverage=[0.9, coverage])), "miscalibrated")
    assert found.severity == severity
    assert word in found.what
    assert "12 steps ahead" in found.evidence


@pytest.mark.parametrize(("error", "severity"), [(0.99, "warning"), (1.3, "serious")])
def test_worse_than_the_last_value(error: float, severity: str) -> None:
    found = finding(replace(HEALTHY, quality=replace(GOOD, error=[error, 0.7])), "worse_than_last_value")
    assert found.severity == severity
    assert f"{error:.3f} at 1 step ahead" in found.evidence


def test_residuals_with_a_pattern() -> None:
    values = np.full(40, 0.02)
    values[23] = 0.35
    log = replace(HEALTHY, autocorrelation=values)
    assert "+0.35 at lag 24" in finding(log, "pattern_left").evidence
    assert "context.hour=true" in finding(log, "pattern_left").try_next
    told = replace(log, recipe=Recipe(context=Context(hour=True, weekday=True)))
    assert "context" not in finding(told, "pattern_left").try_next
    assert kinds(replace(HEALTHY, autocorrelation=np.full(40, 0.1))) == ["nothing"]


def test_too_few_checks() -> None:
    log = replace(HEALTHY, checks=HEALTHY.checks[:1])
    assert kinds(log) == ["too_short"]
    assert kinds(replace(HEALTHY, checks=[])) == ["too_short"]


def test_the_gravest_comes_first() -> None:
    log = replace(HEALTHY, checks=checks(held_back=np.linspace(3, 1.5, N)), quality=replace(GOOD, coverage=[0.3, 0.9]))
    severities = [finding.severity for finding in diagnose(log)]
    assert severities == ["serious", "hint"]


def test_every_finding_has_numbers_and_says_what_to_try() -> None:
    """And what it suggests to set is a setting."""
    flat, bad = np.full(N, 3.0), np.full(N, np.nan)
    logs = [
        replace(HEALTHY, checks=checks(loss=flat, held_back=flat, gradient=flat * 50, weight=flat * 1e5, skipped=50)),
        replace(HEALTHY, checks=checks(loss=np.linspace(2, 0.5, N), held_back=np.linspace(1, 2, N))),
        replace(HEALTHY, checks=checks(held_back=np.linspace(2.9, 1.5, N), speed=np.geomspace(1e5, 1e3, N))),
        replace(HEALTHY, checks=checks(loss=bad, held_back=bad), norms=norms(np.full(40, 1e-9), np.full(40, 1.0))),
        replace(HEALTHY, autocorrelation=np.full(40, 0.5), quality=Quality((1,), [1.2], [0.5], 1.0)),
        replace(HEALTHY, checks=[]),
    ]
    found = [finding for log in logs for finding in diagnose(log)]
    assert len({finding.kind for finding in found}) == len(RULES)
    for one in found:
        assert any(character.isdigit() for character in one.evidence)
        assert one.try_next
        settings = [word for word in one.try_next.split("`")[1::2] if word.startswith("--set ")]
        for name, _, value in (setting.removeprefix("--set ").partition("=") for setting in settings):
            recipes.load(None, {name: value})


# What follows fits for seconds.


def history(kind: str, readings: int, series: int) -> SeriesCollection:
    rng = np.random.default_rng(1)
    day = np.sin(np.arange(readings) * 2 * np.pi / 24)
    if kind == "days":
        make = [3 * day + 0.5 * rng.normal(size=readings) for _ in range(series)]
    elif kind == "walk":
        make = [rng.normal(size=readings).cumsum() for _ in range(series)]
    else:
        make = [rng.normal(size=readings) for _ in range(series)]
    return SeriesCollection([Series(np.arange(readings) * 3_600_000, value) for value in make])


def fitted(of: SeriesCollection, steps: int, **settings: object) -> tuple[Fitted, Recipe]:
    torch.set_num_threads(1)
    small = {"network.hidden": 8, "horizons": [2], "data.length": 48, "data.batch": 4, "plan.chunk": 48}
    recipe = recipes.load(None, {**small, "plan.steps": steps, "plan.check_every": max(1, steps // 10), **settings})
    first, last = of.split(recipe.data.held_back)
    description = data.describe(recipe, "small", first)
    test = data.held_back(last, recipe, n=8, seed=1)
    return fit.fit(recipe, data.source(first, recipe), test, description, device="cpu"), recipe


def found(of: SeriesCollection, steps: int, **settings: object) -> dict[str, Finding]:
    return {finding.kind: finding for finding in report.diagnosed(*fitted(of, steps, **settings))}


def test_a_fit_with_steps_that_are_far_too_large() -> None:
    what = found(history("days", 500, 2), 40, **{"plan.learning_rate": 5.0, "plan.warm_up": 0})
    assert what["not_falling"].severity == "serious"
    assert what["exploding_weights"].severity == "serious"
    assert "plan.learning_rate=0.5" in what["not_falling"].try_next
    assert "overfitting" not in what


@pytest.mark.slow
def test_a_fit_of_little_data_for_many_steps() -> None:
    settings = {"network.hidden": 48, "plan.learning_rate": 0.02, "plan.schedule": "constant", "plan.weight_decay": 0.0}
    what = found(history("noise", 150, 1), 120, **settings)
    assert what["overfitting"].severity == "serious"
    assert "not_falling" not in what


def test_a_fit_that_ends_too_soon() -> None:
    what = found(history("days", 500, 2), 80, **{"plan.learning_rate": 1e-3, "plan.schedule": "constant"})
    assert "underfitting" in what
    assert "miscalibrated" in what


@pytest.mark.slow
def test_a_fit_of_what_nothing_can_forecast() -> None:
    what = found(history("walk", 1000, 2), 80, **{"plan.learning_rate": 0.02, "plan.warm_up": 10})
    assert "worse_than_last_value" in what
    assert not {"not_falling", "exploding_weights", "exploding_gradients", "vanishing_gradients"} & set(what)
