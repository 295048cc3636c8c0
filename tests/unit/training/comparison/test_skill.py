"""Errors by model and by series."""

from __future__ import annotations

import pytest
import torch

from stream_gru.training.comparison import skill


def test_errors_by_the_readings_seen() -> None:
    target = torch.randn(2, 200, 6)
    medians = torch.where(torch.arange(200)[:, None] >= 99, target, 0.5 * target)
    errors = skill.by_position(medians, target, (10, 50, 100, 1000))
    assert errors == {10: pytest.approx(0.5), 50: pytest.approx(0.5), 100: pytest.approx(1e-3)}


def test_series_count_alike_whatever_their_size_and_what_is_unknown_does_not() -> None:
    torch.manual_seed(0)
    target = torch.randn(1, 60, 2)
    medians = torch.stack([target[..., 0] * 0.2, target[..., 1] * 0.8], -1)
    scale = torch.tensor([1.0, 1e4])
    same, larger = (skill.by_position(medians * s, target * s, (20,))[20] for s in (torch.ones(2), scale))
    assert larger == pytest.approx(same, rel=1e-4)
    medians[0, 21, 0] = 1e6
    target[0, 21, 0] = torch.nan
    assert skill.by_position(medians, target, (20,))[20] == pytest.approx(same, rel=0.3)
    flat = torch.cat([target, torch.zeros(1, 60, 1)], -1)
    assert skill.by_position(torch.cat([medians, torch.ones(1, 60, 1)], -1), flat, (20,))[20] < 1
