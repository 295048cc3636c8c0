"""The fit: each technique, by what happens without it."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import logging
import logging.handlers
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from stream_gru.errors import TrainingError
from stream_gru.models import bundle
from stream_gru.training import data, fit, module, objective, portions, recipe
from stream_gru.training.prepare import Prepared, prepare
from stream_gru.training.schedules import Schedule
from stream_gru.training.watch import Watch

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


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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


def run(asked: recipe.Recipe, source: data.Source | None = None, **options: Any) -> fit.Fitted:
    held_back = data.Synthetic().draw(8, 48, np.random.default_rng(9))
    return fit.fit(asked, source or data.source(None, asked), held_back, describe(asked), device="cpu", **options)


def last(folder: Path) -> dict[str, Tensor]:
    """The weights that a fit ended with, be they the best or not."""
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("forecaster."): tensor for name, tensor in state.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def seen() -> Iterator[list[dict[int, Tensor]]]:
    """The gradients that the optimiser saw in each of its steps, by the number of the parameter."""
    steps: list[dict[int, Tensor]] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        steps.append({i: p.grad.clone() for i, p in enumerate(parameters) if p.grad is not None})

    handle = register_optimizer_step_post_hook(note)
    yield steps
    handle.remove()


def norm(gradients: dict[int, Tensor]) -> float:
    return math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))


# Learning


def test_a_fit_learns_and_can_be_repeated() -> None:
    asked = make(plan__steps=40, plan__chunk=24, plan__warm_up=3, plan__schedule="cosine", plan__check_every=20)
    reports: list[fit.Report] = []
    one, other = run(asked, tell=lambda now: reports.append(dataclasses.replace(now))), run(asked)
    assert one.quality.loss < 0.9 * one.before.loss
    assert equal(one.forecaster.state_dict(), other.forecaster.state_dict())
    assert not equal(one.forecaster.state_dict(), run(make(plan__steps=40, plan__seed=1)).forecaster.state_dict())
    assert [now.step for now in reports] == list(range(1, 41))
    assert [now.progress for now in reports] == [step / 40 for step in range(1, 41)]
    assert [now.seconds for now in reports] == sorted(now.seconds for now in reports)
    assert reports[-1].readings == 40 * 24 * 6 == one.readings
    assert (one.steps, one.skipped, one.stopped, one.log) == (40, 0, "steps", None)
    assert not one.forecaster.training
    assert not any(parameter.requires_grad for parameter in one.forecaster.parameters())


def test_the_dice_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run(make(plan__steps=1, network__dropout=0.5))
    assert torch.equal(before, torch.get_rng_state())


def test_chunks_carry_the_state_and_cut_the_gradient() -> None:
    asked = make(network__norm="layer", network__layers=2)
    torch.manual_seed(0)
    forecaster = bundle.build(describe(asked))
    learner = module.Learner(forecaster, asked)
    whole = prepare(batches(1)[0], describe(asked))
    forecast, after = objective.run(forecaster, whole)
    chunks = list(whole.split(20, -2))
    losses = []
    for i, chunk in enumerate(chunks):
        loss = learner.training_step(portions.Portion(chunk, 0, i > 0), i)
        assert loss is not None
        losses.append(loss.item())
        assert not learner._states[0].requires_grad
    torch.testing.assert_close(learner._states[0], after)
    parts = zip(torch.split(forecast, 20, 3), chunks, strict=True)
    assert losses == pytest.approx([objective.loss(forecaster, part, chunk).item() for part, chunk in parts], rel=1e-5)
    again = learner.training_step(portions.Portion(chunks[1], 0, False), 0)
    assert again is not None
    assert again.item() != pytest.approx(losses[1], rel=1e-4)
    anew = objective.loss(forecaster, objective.run(forecaster, chunks[1])[0], chunks[1])
    assert again.item() == pytest.approx(anew.item())  # another window begins anew


def test_a_gradient_reaches_back_as_far_as_the_chunk(seen: list[dict[int, Tensor]]) -> None:
    """The learned first state gets none from a later chunk."""
    run(make(plan__steps=2, plan__chunk=24), Fixed(batches(1)))
    asked = make()
    start = [i for i, (name, _) in enumerate(_in_order(bundle.build(describe(asked)))) if name.endswith("start")]
    assert len(start) == 1
    first, second = (step.get(start[0]) for step in seen)
    assert first is not None
    assert first.abs().sum() > 0
    assert second is None or second.abs().sum() == 0


def _in_order(forecaster: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """As the optimiser has them: matrices, then vectors."""
    named = list(forecaster.named_parameters())
    matrices = [pair for pair in named if pair[1].ndim > 1 and min(pair[1].shape) > 1]
    names = {name for name, _ in matrices}
    return [*matrices, *(pair for pair in named if pair[0] not in names)]


# The gradient


def test_clipping_bounds_what_the_optimiser_sees(seen: list[dict[int, Tensor]]) -> None:
    fitted = run(make(plan__clip=0.01), Fixed(batches(1)))
    assert fitted.checks[-1].gradient_norm > 0.1  # before clipping
    assert [norm(step) for step in seen] == pytest.approx([0.01] * 4, rel=1e-3)


def test_without_need_nothing_is_clipped(seen: list[dict[int, Tensor]]) -> None:
    fitted = run(make(plan__clip=1e6, plan__steps=1), Fixed(batches(1)))
    assert norm(seen[0]) == pytest.approx(fitted.checks[-1].gradient_norm, rel=1e-5)


def test_accumulation_steps_with_the_mean_gradient(seen: list[dict[int, Tensor]]) -> None:
    one, other = batches(2)
    asked = make(plan__clip=1e6, plan__steps=1)
    run(asked, Fixed([one]))
    run(asked, Fixed([other]))
    both = make(plan__clip=1e6, plan__steps=1, plan__accumulate=2)
    fitted = run(both, Fixed([one, other]))
    first, second, mean = seen
    assert (fitted.steps, fitted.readings) == (1, 2 * 48 * 6)
    for i, gradient in mean.items():
        torch.testing.assert_close(gradient, (first[i] + second[i]) / 2)


def test_accumulated_batches_take_turns_with_states_of_their_own() -> None:
    asked = make(plan__accumulate=2, plan__chunk=20)
    taken = iter(portions.Portions(Fixed(batches(2)), describe(asked), asked.plan, torch.device("cpu")))
    turns = [(p.slot, p.follows, p.prepared.x.shape[1]) for p, _ in zip(taken, range(6), strict=False)]
    assert turns == [(0, False, 20), (1, False, 20), (0, True, 20), (1, True, 20), (0, True, 8), (1, True, 8)]


def test_batches_prepared_together_are_as_if_alone() -> None:
    asked = make()
    mixed = [*batches(2, 3, 48), *batches(1, 5, 32), *batches(1, 2, 48)]
    taken = iter(portions.Portions(Fixed(mixed), describe(asked), asked.plan, torch.device("cpu")))
    for windows, portion in zip(mixed, taken, strict=False):
        for one, other in zip(portion.prepared, prepare(windows, describe(asked)), strict=True):
            torch.testing.assert_close(one, other, equal_nan=True)


def test_padding_is_passed_over() -> None:
    """Whatever it holds, a window ends in the state, and has the forecasts, that it has without it."""
    asked = make()
    whole = prepare(batches(1, 2, 30)[0], describe(asked))
    forecaster = bundle.build(describe(asked))
    *columns, length, steps = whole
    padded = Prepared._make(
        (*(nn.functional.pad(part, (0, 0, 0, 18), value=math.nan) for part in columns), length, steps)
    )
    forecast, state = objective.run(forecaster, whole)
    other, after = objective.run(forecaster, padded)
    torch.testing.assert_close(after, state)
    torch.testing.assert_close(other[..., :30, :], forecast, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [1e6, 0.05])
def test_members_of_an_ensemble_are_fitted_as_if_alone(clip: float, tmp_path: Path) -> None:
    together = make(network__cells=["gru", "lstm"], plan__clip=clip)
    torch.manual_seed(1)
    both = bundle.build(describe(together))
    joint = bundle.Bundle(describe(together), both, "joint")
    run(together, Fixed(batches(2)), start=joint, folder=tmp_path / "joint")
    ended = last(tmp_path / "joint")
    for i, cell in enumerate(("gru", "lstm")):
        single = make(network__cells=[cell], plan__clip=clip)
        prefixes = {f"network.parts.{i}.": "network.", f"heads.{i}.": "heads.0."}
        own = {
            new + name.removeprefix(old): tensor
            for name, tensor in both.state_dict().items()
            for old, new in prefixes.items()
            if name.startswith(old)
        }
        member = bundle.build(describe(single))
        member.load_state_dict(own)
        start = bundle.Bundle(describe(single), member, "one")
        run(single, Fixed(batches(2)), start=start, folder=tmp_path / cell)
        alone = last(tmp_path / cell)
        assert not equal(alone, own)
        for old, new in prefixes.items():
            for name in (name for name in ended if name.startswith(old)):
                torch.testing.assert_close(ended[name], alone[new + name.removeprefix(old)], rtol=1e-4, atol=1e-6)


# What is not finite


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


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_bad_batch_changes_nothing_and_is_counted(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, moments and batch-norm statistics are those of a fit that never met it."""
    one, bad, other = batches(3)
    run(make(plan__steps=2, network__norm="batch"), Fixed([one, other]), folder=tmp_path / "good")
    spoil(monkeypatch, lambda count: count == 2, how)
    fitted = run(make(plan__steps=3, network__norm="batch"), Fixed([one, bad, other]), folder=tmp_path / "bad")
    assert (fitted.skipped, fitted.steps, fitted.checks[-1].skipped) == (1, 3, 1)
    assert equal(last(tmp_path / "good"), last(tmp_path / "bad"))
    assert math.isfinite(fitted.checks[-1].loss)
    assert math.isfinite(fitted.checks[-1].gradient_norm)


def test_a_bad_batch_leaves_those_that_it_is_accumulated_with(
    seen: list[dict[int, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, bad = batches(2)
    run(make(plan__clip=1e6, plan__steps=1), Fixed([one]))
    spoil(monkeypatch, lambda count: count == 2, "loss")
    fitted = run(make(plan__clip=1e6, plan__steps=1, plan__accumulate=2), Fixed([one, bad]))
    assert fitted.skipped == 1
    for i, gradient in seen[1].items():
        torch.testing.assert_close(gradient, seen[0][i] / 2)


@pytest.mark.parametrize("follows", [True, False])
def test_a_bad_batch_takes_its_state_along(follows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = make()
    learner = module.Learner(bundle.build(describe(asked)), asked)
    chunks = [
        portions.Portion(c, 0, i > 0) for i, c in enumerate(prepare(batches(1)[0], describe(asked)).split(16, -2))
    ]
    spoil(monkeypatch, lambda count: count == 2, "loss")
    assert learner.training_step(chunks[0], 0) is not None
    assert learner.training_step(chunks[1]._replace(follows=follows), 1) is None
    after_bad = learner.training_step(chunks[2], 2)
    anew = learner.training_step(chunks[2]._replace(follows=False), 3)
    assert after_bad is not None
    assert anew is not None
    assert after_bad.item() == anew.item()


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_too_many_bad_batches_are_an_error(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda count: count in (2, 3, 5, 8, 9, 10), how)
    assert run(make(plan__steps=6, plan__max_skipped=3)).skipped == 3
    with pytest.raises(TrainingError, match=rf"3 batches .* a {how}: try a lower plan.learning_rate"):
        run(make(plan__steps=10, plan__max_skipped=2))


# The learning rate and the weights


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        ("step", [0.25, 0.5, 0.75, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001]),
        ("exponential", [min(1, (i + 1) / 4) * 0.1 ** (i / 3) for i in range(10)]),
        ("cosine", [min(1, (i + 1) / 4) * (1 + math.cos(math.pi * i / 10)) / 2 for i in range(10)]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    made = Schedule(make(plan__schedule=schedule, plan__warm_up=4, plan__decay=0.1, plan__decay_every=3).plan)
    assert [made.factor(i, i / 10) for i in range(10)] == pytest.approx(expected)


def test_a_plateau_lowers_the_rate_until_there_is_a_gain() -> None:
    made = Schedule(make(plan__schedule="plateau", plan__decay=0.5, plan__decay_every=20, plan__min_gain=0.01).plan)
    factors = []
    for step, loss in enumerate([5.0, 4.0, 3.99, 3.98, 3.97, 3.0, math.nan, 3.1, 3.2, 3.3], 1):
        made.look(10 * step, loss)
        factors.append(made.factor(10 * step, 0.5))
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    other = Schedule(make(plan__schedule="plateau", plan__decay=0.5).plan)
    other.restore(made.state())
    assert other.factor(0, 0.0) == 0.125


@pytest.mark.parametrize(
    ("schedule", "expected"), [("step", [0.01, 0.01, 0.005, 0.005]), ("plateau", [0.01, 0.01, 0.01, 0.005])]
)
def test_the_optimiser_follows_the_schedule(schedule: str, expected: list[float]) -> None:
    plan = {"plan__decay": 0.5, "plan__decay_every": 2, "plan__check_every": 1, "plan__min_gain": 0.9}
    rates: list[float] = []
    handle = register_optimizer_step_post_hook(lambda used, *_: rates.extend({g["lr"] for g in used.param_groups}))
    fitted = run(make(**plan, plan__schedule=schedule))
    handle.remove()
    assert rates == [check.learning_rate for check in fitted.checks] == pytest.approx(expected)


def test_weight_decay_shrinks_matrices_and_nothing_else(tmp_path: Path) -> None:
    unknown = [dataclasses.replace(each, known=np.zeros_like(each.known)) for each in batches(1)]
    asked = make(network__norm="layer", plan__weight_decay=0.5, plan__steps=3)
    torch.manual_seed(0)
    start = bundle.Bundle(describe(asked), bundle.build(describe(asked)), "start")
    run(asked, Fixed(unknown), start=start, folder=tmp_path)
    ended, shrunk = last(tmp_path), 0
    for name, before in start.forecaster.named_parameters():
        factor = (1 - 0.01 * 0.5) ** 3 if before.ndim > 1 else 1.0
        shrunk += before.ndim > 1
        torch.testing.assert_close(ended[name], before.detach() * factor)
    assert shrunk == 4


@pytest.mark.parametrize("init", ["orthogonal", "uniform"])
def test_cells_begin_as_the_plan_says(init: str, tmp_path: Path) -> None:
    run(make(plan__init=init, plan__steps=1, plan__learning_rate=1e-9, network__layers=2), folder=tmp_path)
    ended = last(tmp_path)
    recurrent = [tensor for name, tensor in ended.items() if name.endswith("candidate_weights")]
    biases = [tensor for name, tensor in ended.items() if name.endswith("candidate_bias")]
    assert len(recurrent) == len(biases) == 2
    for weights, bias in zip(recurrent, biases, strict=True):
        orthogonal = torch.allclose(weights @ weights.T, torch.eye(6), atol=1e-5)
        assert orthogonal == (init == "orthogonal")
        assert (float(bias.abs().max()) > 1e-3) == (init == "uniform")
        assert weights.abs().max() <= (1 if orthogonal else 6**-0.5)


def test_a_fit_goes_on_from_a_bundle_of_the_same_network(tmp_path: Path) -> None:
    asked = make(plan__steps=1, plan__learning_rate=1e-9)
    start = bundle.save(tmp_path, describe(asked), bundle.build(describe(asked)))
    weights = {name: tensor.clone() for name, tensor in start.forecaster.state_dict().items()}
    fitted = run(asked, start=start)
    for name, tensor in fitted.forecaster.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-6, rtol=0)
    run(make(), start=start)
    assert equal(dict(start.forecaster.state_dict()), weights)  # the bundle itself is not touched
    with pytest.raises(TrainingError, match="not those of the recipe"):
        run(make(network__hidden=7), start=start)


# Looks at the held-back data


def test_the_best_weights_are_returned_not_the_last() -> None:
    held_back = data.Synthetic().draw(8, 48, np.random.default_rng(9))
    asked = make(plan__learning_rate=0.1, plan__steps=40, plan__check_every=5)
    fitted = run(asked, Fixed(batches(1)))  # it learns these by heart
    losses = [check.held_back for check in fitted.checks]
    best = min(losses)
    assert losses[-1] > 1.01 * best
    assert fitted.quality.loss == best
    again = objective.evaluate(fitted.forecaster, prepare(held_back, fitted.description))
    assert again.loss == pytest.approx(best)
    assert again.error == pytest.approx(fitted.quality.error)
    assert fitted.quality.error == fitted.checks[losses.index(best)].error


def test_an_early_stop_waits_for_its_patience() -> None:
    plan = {"plan__check_every": 2, "plan__min_gain": 0.9, "plan__steps": 50}
    fitted = run(make(**plan, plan__patience=3))
    assert (fitted.stopped, fitted.steps, len(fitted.checks)) == ("patience", 6, 3)
    assert run(make(**plan)).stopped == "steps"
    falling = make(plan__check_every=2, plan__min_gain=0.0, plan__steps=10, plan__patience=3)
    assert run(falling).stopped == "steps"


def test_a_fit_ends_by_the_clock_or_when_it_is_told_to() -> None:
    fitted = run(make(plan__steps=None, plan__minutes=0.3 / 60, plan__check_every=1))
    assert fitted.stopped == "time"
    assert fitted.seconds >= 0.3
    assert fitted.checks[-1].step == fitted.steps
    looks: list[int] = []

    def prune(check: fit.Check) -> bool:
        looks.append(check.step)
        return check.step >= 6

    pruned = run(make(plan__steps=20, plan__check_every=3), stop=prune)
    assert (pruned.stopped, pruned.steps, looks) == ("pruned", 6, [3, 6])


def test_logs_tell_losses_and_norms(tmp_path: Path, seen: list[dict[int, Tensor]]) -> None:
    asked = make(plan__steps=25, plan__check_every=20, plan__clip=0.01)
    fitted = run(asked, folder=tmp_path / "log")
    assert fitted.log == tmp_path / "log"
    assert sorted(file.name for file in fitted.log.iterdir()) == ["checks.csv", "last.ckpt", "norms.csv"]
    with (fitted.log / "checks.csv").open() as file:
        checks = list(csv.DictReader(file))
    assert [int(row["step"]) for row in checks] == [20, 25] == [check.step for check in fitted.checks]
    assert [float(row["held_back"]) for row in checks] == [check.held_back for check in fitted.checks]
    assert float(checks[1]["error 3"]) == fitted.checks[1].error[1]
    with (fitted.log / "norms.csv").open() as file:
        norms = list(csv.DictReader(file))
    assert [int(row["step"]) for row in norms] == list(range(2, 26, 2))
    names = [name for name, _ in fitted.forecaster.named_parameters()]
    assert list(norms[0]) == ["step", *(f"gradient.{name}" for name in names), *(f"weight.{name}" for name in names)]
    whole = math.hypot(*(float(norms[0][f"gradient.{name}"]) for name in names))
    assert whole > 0.1 > norm(seen[1])  # before clipping
    ended = last(fitted.log)
    for name in names:
        assert float(norms[-1][f"weight.{name}"]) == pytest.approx(float(ended[name].norm()), rel=0.1, abs=0.05)


def test_nothing_is_printed_or_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    heard = logging.handlers.BufferingHandler(1000)
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(heard)
    run(make())
    for logger in loggers:
        logger.removeHandler(heard)
    assert not heard.buffer
    assert [logger.level for logger in loggers] == before
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


# Interruption


@pytest.mark.parametrize(("steps", "accumulate"), [(40, 1), (16, 3)])
def test_a_resumed_fit_equals_one_that_was_never_interrupted(steps: int, accumulate: int, tmp_path: Path) -> None:
    """With all that has a memory: dice, moments, statistics, schedule, the place in the data, states in mid-window."""
    asked = make(
        network__dropout=0.3,
        network__norm="batch",
        plan__chunk=16,
        plan__steps=steps,
        plan__accumulate=accumulate,
        plan__schedule="plateau",
        plan__decay_every=3,
        plan__min_gain=0.5,
        plan__check_every=6,
        plan__warm_up=10,
    )
    whole: list[float] = []
    parts: list[float] = []
    one = run(asked, folder=tmp_path / "one", tell=lambda now: whole.append(now.loss))

    def interrupt(now: fit.Report) -> None:
        parts.append(now.loss)
        if now.step == steps // 2:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(asked, folder=tmp_path / "two", tell=interrupt)
    assert len(parts) == steps // 2
    assert signal.getsignal(signal.SIGINT) is before
    spent = torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)["callbacks"]["Watch"]["seconds"]
    times: list[float] = []

    def go_on(now: fit.Report) -> None:
        parts.append(now.loss)
        times.append(now.seconds)

    two = run(asked, folder=tmp_path / "two", resume=True, tell=go_on)
    assert 0 < spent < times[0]
    assert parts == whole
    assert equal(one.forecaster.state_dict(), two.forecaster.state_dict())
    assert equal(last(tmp_path / "one"), last(tmp_path / "two"))
    assert [dataclasses.replace(check, seconds=0) for check in one.checks] == [
        dataclasses.replace(check, seconds=0) for check in two.checks
    ]
    assert (one.before, one.quality, one.readings) == (two.before, two.quality, two.readings)
    assert (tmp_path / "one" / "norms.csv").read_text() == (tmp_path / "two" / "norms.csv").read_text()
    assert (tmp_path / "two" / "checks.csv").read_text().count("\n") == 1 + len(one.checks)


def test_a_finished_fit_goes_on_with_more_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda count: count == 2, "loss")
    run(make(plan__steps=5), folder=tmp_path)
    longer = run(make(plan__steps=9), folder=tmp_path, resume=True)
    assert longer.skipped == 1
    assert (longer.steps, [check.step for check in longer.checks]) == (9, [5, 9])
    same = run(make(plan__steps=9), folder=tmp_path, resume=True)
    assert (same.steps, same.stopped, same.quality) == (9, "steps", longer.quality)


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nothing to resume: no .*last\.ckpt"):
        run(make(), folder=tmp_path, resume=True)
    run(make(), folder=tmp_path)
    with pytest.raises(TrainingError, match="another network"):
        run(make(network__hidden=5), folder=tmp_path, resume=True)
    with pytest.raises(TrainingError, match="another plan"):
        run(make(plan__learning_rate=0.5), folder=tmp_path, resume=True)
    (tmp_path / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match="can't be resumed from"):
        run(make(), folder=tmp_path, resume=True)


# Precision and devices


def test_bfloat16_computes_and_float32_keeps(tmp_path: Path) -> None:
    fits = [
        run(make(plan__precision=precision, plan__steps=20), Fixed(batches(2)), folder=tmp_path)
        for precision in ("32", "bf16-mixed")
    ]
    assert all(tensor.dtype == torch.float32 for tensor in last(tmp_path).values())
    full, half = (fitted.checks[-1].loss for fitted in fits)
    assert 1e-6 < abs(half / full - 1) < 0.05


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(TrainingError, match="16-mixed needs a CUDA device"):
        run(make(plan__precision="16-mixed"))


@pytest.mark.parametrize(
    ("name", "message"), [("tpuu", "there is no device"), ("meta", "can't use"), ("cuda:99", "CUDA devices here")]
)
def test_a_device_that_is_not_there_is_said(name: str, message: str) -> None:
    asked = make()
    with pytest.raises(TrainingError, match=message):
        fit.fit(asked, Fixed(batches(1)), batches(1)[0], describe(asked), device=name)


def test_evaluation_in_parts_is_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = make()
    forecaster, prepared = bundle.build(describe(asked)), prepare(batches(1)[0], describe(asked))
    whole = objective.evaluate(forecaster, prepared)
    monkeypatch.setattr(objective, "_AT_ONCE", 100)  # two series at a time
    assert objective.evaluate(forecaster, prepared).error == pytest.approx(whole.error)


def test_a_scaled_loss_is_unscaled_before_clipping(
    seen: list[dict[int, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scaler on the CPU: what is clipped, logged and stepped with is as large as without it."""
    from lightning.pytorch.plugins.precision.amp import MixedPrecision

    real = fit._trainer

    def trainer(plan: recipe.Plan, device: torch.device, watch: Watch) -> Any:
        made = real(plan, device, watch)
        made.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", 2.0**10))
        return made

    plain = run(make(plan__clip=0.1), Fixed(batches(2)))
    monkeypatch.setattr(fit, "_trainer", trainer)
    scaled = run(make(plan__clip=0.1), Fixed(batches(2)))
    assert plain.checks[-1].gradient_norm > 0.2
    assert scaled.checks[-1].gradient_norm == pytest.approx(plain.checks[-1].gradient_norm, rel=0.1)
    assert [norm(step) for step in seen] == pytest.approx([0.1] * 8, rel=0.01)
    spoil(monkeypatch, lambda count: count == 2, "loss")
    assert run(make(), Fixed(batches(3))).skipped == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_a_gpu(seen: list[dict[int, Tensor]], tmp_path: Path) -> None:
    held_back = data.Synthetic().draw(8, 48, np.random.default_rng(9))
    fits = []
    for precision in ("32", "16-mixed"):
        asked = make(plan__precision=precision, plan__clip=0.1, plan__steps=20)
        source = Fixed(batches(2))
        fits.append(fit.fit(asked, source, held_back, describe(asked), device="cuda", folder=tmp_path))
    norms = [norm(step) for step in seen if step]
    assert norms == pytest.approx([0.1] * len(norms), rel=0.01)
    assert fits[1].checks[-1].gradient_norm == pytest.approx(fits[0].checks[-1].gradient_norm, rel=0.2)
    assert fits[1].quality.loss == pytest.approx(fits[0].quality.loss, rel=0.1)
    assert fits[1].skipped == 0


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    spec = importlib.util.spec_from_file_location("another", str(module.__file__))
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(TrainingError, match=r"pip install 'stream-gru\[training\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
