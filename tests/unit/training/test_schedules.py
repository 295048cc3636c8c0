"""The learning rate over a fit."""

from __future__ import annotations

import math

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from stream_gru.training.schedules import Schedule
from tests.support.fits import make, run


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
