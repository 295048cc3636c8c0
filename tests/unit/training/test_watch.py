"""When a fit ends, what it leaves in its logs, and how it goes on after an interruption."""

from __future__ import annotations

import csv
import dataclasses
import logging
import logging.handlers
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stream_gru.errors import TrainingError
from stream_gru.training import data, fit, objective
from stream_gru.training.prepare import prepare
from tests.support.fits import Fixed, batches, equal, last, make, norm, run, spoil


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


@pytest.mark.slow
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

    def prune(check: fit.FitCheck) -> bool:
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


@pytest.mark.slow
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

    def interrupt(now: fit.FitProgress) -> None:
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

    def go_on(now: fit.FitProgress) -> None:
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
