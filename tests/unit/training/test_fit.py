"""The fit: each technique, by what happens without it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stream_gru.errors import TrainingError
from stream_gru.models import bundle
from stream_gru.training import fit, module, objective, portions
from stream_gru.training.prepare import Prepared, prepare
from tests.support.fits import Fixed, batches, describe, equal, last, make, norm, run

# Learning


def test_a_fit_learns_and_can_be_repeated() -> None:
    asked = make(plan__steps=40, plan__chunk=24, plan__warm_up=3, plan__schedule="cosine", plan__check_every=20)
    reports: list[fit.FitProgress] = []
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


# The weights


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


def test_evaluation_in_parts_is_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = make()
    forecaster, prepared = bundle.build(describe(asked)), prepare(batches(1)[0], describe(asked))
    whole = objective.evaluate(forecaster, prepared)
    monkeypatch.setattr(objective, "_READINGS_AT_ONCE", 100)  # two series at a time
    assert objective.evaluate(forecaster, prepared).error == pytest.approx(whole.error)
