"""What a fit computes in, and on which device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stream_gru.errors import TrainingError
from stream_gru.training import data, fit, recipe
from stream_gru.training.watch import FitWatch
from tests.support.fits import Fixed, batches, describe, last, make, norm, run, spoil


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


def test_a_scaled_loss_is_unscaled_before_clipping(
    seen: list[dict[int, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scaler on the CPU: what is clipped, logged and stepped with is as large as without it."""
    from lightning.pytorch.plugins.precision.amp import MixedPrecision

    real = fit._trainer

    def trainer(plan: recipe.FitPlan, device: torch.device, watch: FitWatch) -> Any:
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
