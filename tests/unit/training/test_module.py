"""Batches whose loss or gradient is not finite change nothing; too many of them are an error."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stream_gru.errors import TrainingError
from stream_gru.models import bundle
from stream_gru.training import module, portions
from stream_gru.training.prepare import prepare
from tests.support.fits import Fixed, batches, describe, equal, last, make, run, spoil


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


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    spec = importlib.util.spec_from_file_location("another", str(module.__file__))
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(TrainingError, match=r"pip install 'stream-gru\[training\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
