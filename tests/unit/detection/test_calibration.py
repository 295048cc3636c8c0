from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from stream_gru.columns import Bools, Floats
from stream_gru.detection import calibration

LEVELS = torch.tensor([0.05, 0.5, 0.95])[:, None]


def follow(dx: Floats, forecast: Floats) -> tuple[Bools, Tensor]:
    """Whether each reading (T,) lay in the interval of a forecast of always these quantiles; the factors in the end."""
    factors = torch.zeros(3, 1)
    raw = torch.from_numpy(forecast).float()[:, None]
    inside = np.empty(len(dx), np.bool_)
    for t, now in enumerate(dx):
        made = calibration.spread(raw, factors, raw[1:2])
        inside[t] = bool((now >= made[0]) & (now <= made[2]))
        factors = calibration.track(factors, made, torch.full((1, 1), now), torch.full((1, 1), 1 / max(t, 1)), LEVELS)
    return inside, factors


@pytest.mark.parametrize("wrong", [0.3, 1.0, 2.5])
def test_an_interval_of_the_wrong_width_comes_to_cover_ninety_percent(wrong: float) -> None:
    dx = np.random.default_rng(0).normal(size=6000)
    bound = NormalDist().inv_cdf(0.95) * wrong
    inside, factors = follow(dx.astype(np.float32), np.array([-bound, 0, bound]))
    assert inside[1000:].mean() == pytest.approx(0.9, abs=0.02)
    assert factors[1] == 0  # the median is left alone
    assert bool((factors[::2].sign() == np.sign(1 - wrong)).all()) or wrong == 1


def test_each_side_has_its_own_factor() -> None:
    dx = np.random.default_rng(1).exponential(size=4000) - 1
    _, factors = follow(dx.astype(np.float32), np.array([-1.0, -0.3, 1.0]))
    assert factors[0] < 0 < factors[2]


def test_the_first_readings_change_nothing() -> None:
    inside, factors = follow(np.full(63, 100.0, np.float32), np.array([-1.0, 0, 1.0]))
    assert not inside.any()
    assert bool((factors == 0).all())


@pytest.mark.parametrize("seen", [63, 64])
def test_from_the_64th_on_a_factor_moves_by_what_lies_below(seen: int) -> None:
    made, dx = torch.tensor([[-1.0], [0], [1]]).expand(-1, 4), torch.tensor([[-2.0, -1, 0, 1]])
    moved = calibration.track(torch.zeros(3, 4), made, dx, torch.full((1, 4), 1 / seen), LEVELS) / 0.05
    lower, upper = torch.tensor([[0.95, 0.45, -0.05, -0.05], [-0.05, -0.05, -0.05, 0.45]])
    expected = torch.stack([lower, torch.zeros(4), upper]) * (seen == 64)
    torch.testing.assert_close(moved, expected)


def test_quantiles_rise_whatever_the_factors() -> None:
    raw = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None]
    drawn = calibration.spread(raw, torch.tensor([-2.0, 2.0, 0.0, 1.5, -1.0])[:, None], raw[2:3])
    assert bool((drawn.diff(dim=0) >= 0).all())
    torch.testing.assert_close(calibration.spread(raw, torch.zeros(5, 1), raw[2:3]), raw)


def test_a_series_that_never_moves_is_no_reason_for_wide_or_vanishing_intervals() -> None:
    inside, factors = follow(np.zeros(3000, np.float32), np.array([-1.0, 0, 1.0]))
    assert inside.all()
    assert bool((factors.abs() <= 2).all())
