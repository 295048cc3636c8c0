"""The detector on a simulated fleet, where it is known what is anomalous; thresholds leave room for other weights."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from stream_gru.batch import Forecasts, Level, Readings
from stream_gru.detector import judge
from stream_gru.engine import Engine
from stream_gru.tools.fleet import Fleet, Label

SERIES, TICKS, STEP = 120, 2000, 60_000
AFTER = 5 * STEP  # an anomaly may be flagged so long after its end
ECHO = 40 * STEP  # the return to normal is a change as well


@pytest.fixture(scope="module")
def watched() -> tuple[Fleet, list[Label], Readings, Forecasts]:
    fleet = Fleet(SERIES, STEP, 1_700_000_000_000, seed=11, anomalies=1 / 1200, gaps=1 / 3000, nulls=0.001)
    block = fleet.ticks(TICKS)
    engine = Engine(capacity=SERIES, device="cpu")
    engine.arena.open(0)
    slots = engine.arena.admit(0, [name.encode() for name in fleet.names])
    readings = Readings(slots[block.series], block.position, block.timestamp, block.value[:, None])
    # The slots of a new arena count the series.
    return fleet, block.labels, readings, engine.step(readings)


def test_most_injected_anomalies_are_found(watched: tuple[Fleet, list[Label], Readings, Forecasts]) -> None:
    fleet, labels, readings, out = watched
    found = defaultdict(list)
    for label in labels:
        near = (readings.timestamp >= label.start) & (readings.timestamp <= label.end + AFTER)
        own = readings.slot == fleet.names.index(label.series)
        found[label.kind].append(bool(out.is_anomaly[near & own].any()))
    everything = [hit for hits in found.values() for hit in hits]
    assert len(everything) > 100
    assert np.mean(everything) >= 0.8
    for kind, hits in found.items():
        assert np.mean(hits) >= 0.65, kind


def test_false_alarms_are_rare(watched: tuple[Fleet, list[Label], Readings, Forecasts]) -> None:
    fleet, labels, readings, out = watched
    clean = np.isin(out.level, (Level.NORMAL, Level.ANOMALY))
    for label in labels:
        near = (readings.timestamp >= label.start) & (readings.timestamp <= label.end + ECHO)
        clean &= ~(near & (readings.slot == fleet.names.index(label.series)))
    assert clean.sum() > 150_000
    assert out.is_anomaly[clean].mean() <= 1e-4
    assert out.alert[clean].mean() <= 5e-5


def test_intervals_cover_what_they_say(watched: tuple[Fleet, list[Label], Readings, Forecasts]) -> None:
    out = watched[3]
    ripe = (out.level == Level.NORMAL)[:, None]
    inside = (out.y >= out.lower) & (out.y <= out.upper)
    assert 0.86 <= inside[ripe].mean() <= 0.94


def test_several_features_are_judged_together() -> None:
    nothing = np.zeros(3)
    scores = np.array([[0.9, 0.9, 0.9], [0.9, 0.0, 0.0], [3.0, 0.0, 0.1]])
    verdict = judge(scores, nothing, 1.0)
    assert verdict.is_anomaly.tolist() == [True, False, True]
    assert (verdict.score >= scores.max(1) - 1e-12).all()
    assert judge(scores[:, :1], nothing, 1.0).score.tolist() == [0.9, 0.9, 3.0]


def test_a_run_is_alerted_at_its_start_and_closed_at_its_end() -> None:
    running = np.array([0.0, 1.0, 1.0, 0.0])
    verdict = judge(np.array([[2.0], [2.0], [0.5], [0.5]]), running, 1.0)
    assert verdict.alert.tolist() == [True, False, False, False]
    assert verdict.alert_score.tolist() == [2.0, 0.0, 0.0, 0.0]
    assert verdict.closes.tolist() == [False, False, True, False]
    assert verdict.alarm.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert verdict.grade.tolist() == [0.5, 0.5, 0.0, 0.0]
