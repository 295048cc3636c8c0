"""The floor of a process's memory, which a backlog does not lift and a leak does."""

from __future__ import annotations

import numpy as np
import pytest

from tests.chaos.memory import Life


@pytest.mark.parametrize("leak", [0.0, 20.0], ids=["sound", "leaking"])
def test_the_floor_shows_a_leak_and_no_backlog(leak: float) -> None:
    rng = np.random.default_rng(0)
    hours = np.arange(0, 3600, 10) / 3600
    backlog = rng.exponential(15, len(hours)) * (rng.random(len(hours)) < 0.8)
    life = Life("a", 1, (hours * 3600).tolist(), (350 + leak * hours + backlog).tolist())
    assert life.slope(600) == pytest.approx(leak, abs=1.0)


def test_a_short_life_has_no_slope() -> None:
    assert Life("a", 1, [0.0, 600.0, 900.0, 1000.0], [1.0] * 4).slope(600) is None
    assert Life("a", 1).slope(600) is None
