from __future__ import annotations

import pytest

from stream_gru.columns import DAY_MS
from stream_gru.errors import StreamGruError
from stream_gru.tools.simulate import Simulation

NOW = 1_800_000_000_000


def test_a_fast_clock_ends_at_the_present() -> None:
    simulation = Simulation(rate=100, series=50, duration_s=60, speedup=600)
    fleet = simulation.fleet(NOW)
    assert fleet.step_ms == pytest.approx(300_000)
    last = fleet.ticks(100 * 60 // 50).timestamp[-1]
    assert last == pytest.approx(NOW + 60_000, abs=300_000)


def test_an_endless_run_has_room_for_a_day() -> None:
    fleet = Simulation(speedup=100).fleet(NOW)
    assert fleet.start_ms == NOW - 99 * DAY_MS


def test_real_time_begins_now() -> None:
    assert Simulation().fleet(NOW).start_ms == NOW


def test_anomalies_per_hour_become_a_chance_per_reading() -> None:
    simulation = Simulation(rate=100, series=100, anomalies_per_hour=3600, quiet=0)
    labels = simulation.fleet(NOW).ticks(1000).labels
    assert len(labels) == pytest.approx(1000 * 0.7, rel=0.2), "one a second for 1,000 s, less while one is going on"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": 0.0}, "rate must be above 0, got 0"),
        ({"series": 0}, "series must be at least 1"),
        ({"duration_s": -1.0, "speedup": 0.0}, "duration_s must be above 0.*speedup must be above 0"),
    ],
)
def test_what_can_not_be_simulated(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(StreamGruError, match=message):
        Simulation(**wrong)  # type: ignore[arg-type]  # one dict for fields of several types
