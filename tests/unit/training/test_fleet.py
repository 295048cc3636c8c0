from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stream_gru.columns import DAY_MS, Floats
from stream_gru.training.fleet import ANOMALIES, Fleet

STEP_MS = 300_000  # five minutes


def grid(fleet: Fleet, ticks: int) -> Floats:
    """(ticks, S) values of a fleet without gaps."""
    return fleet.ticks(ticks).value.reshape(ticks, fleet.series)


def test_sensors_take_turns_and_time_goes_on() -> None:
    fleet = Fleet(series=7, step_ms=1000, start_ms=1_700_000_000_000)
    first, second = fleet.ticks(3), fleet.ticks(2)
    assert first.series.tolist() == list(range(7)) * 3
    assert second.position.tolist() == list(range(21, 35))
    assert first.timestamp[0] == 1_700_000_000_000
    assert second.timestamp[0] == 1_700_000_003_000
    timestamps = np.concatenate([first.timestamp, second.timestamp])
    assert (np.diff(timestamps) > 0).all()
    assert len(set(fleet.names)) == 7


def test_another_seed_is_another_fleet() -> None:
    same, again, other = (grid(Fleet(10, STEP_MS, start, seed), 50) for start, seed in ((0, 1), (10**12, 1), (0, 2)))
    np.testing.assert_array_equal(same, again, "whenever it is run")
    assert (same != other).any(axis=0).all()


def test_days_repeat_themselves() -> None:
    day = DAY_MS // STEP_MS
    value = grid(Fleet(50, STEP_MS, 0, seed=3), 14 * day).reshape(14, day, 50)
    profile = value.mean(axis=0)  # (day, S)
    explained = profile.var(axis=0) / value.reshape(-1, 50).var(axis=0)
    assert np.median(explained) > 0.4, "a daily cycle is most of what moves"
    weekly = np.abs(value.mean(axis=1)).std(axis=0) / profile.std(axis=0)
    assert np.median(weekly) > 0.1, "days differ within the week"


def test_gaps_and_nulls_are_there_as_often_as_asked() -> None:
    fleet = Fleet(200, STEP_MS, 0, gaps=1 / 500, nulls=1 / 100, quiet=10)
    block = fleet.ticks(2000)
    assert 0.01 < 1 - len(block) / 400_000 < 0.06, "about one gap of 16 readings in 526"
    assert np.isnan(block.value).mean() == pytest.approx(0.01, rel=0.1)
    longest = max(np.diff(np.sort(block.position[block.series == s])).max() for s in range(200)) // 200
    assert 10 < longest <= 31


def test_every_kind_of_anomaly_is_injected_and_labelled() -> None:
    fleet = Fleet(100, STEP_MS, 0, seed=5, anomalies=1 / 1000, gaps=1 / 300, quiet=64)
    blocks = [fleet.ticks(100) for _ in range(20)]
    labels = [label for block in blocks for label in block.labels]
    kinds = Counter(label.kind for label in labels)
    assert set(kinds) == set(ANOMALIES)
    assert min(kinds.values()) > 10
    assert len(labels) == pytest.approx(100 * 2000 / (1000 + 64 + 40), rel=0.3)

    end = blocks[-1].timestamp[-1]
    series = np.concatenate([block.series for block in blocks])
    timestamp = np.concatenate([block.timestamp for block in blocks])
    for label in labels:
        if label.end > end:
            continue
        own = timestamp[series == fleet.names.index(label.series)]
        inside = own[(own >= label.start) & (own <= label.end)]
        assert inside[0] == label.start, "the first and last reading of an anomaly are never swallowed by a gap"
        assert inside[-1] == label.end
        assert label.start >= 64 * STEP_MS, "never while a series is young"


def test_anomalies_keep_their_distance_within_a_series() -> None:
    fleet = Fleet(20, STEP_MS, 0, seed=6, anomalies=1 / 100, quiet=50)
    by_series: dict[str, int] = {}
    for label in fleet.ticks(3000).labels:
        assert label.start - by_series.get(label.series, label.start - 50 * STEP_MS) >= 50 * STEP_MS
        by_series[label.series] = label.end


def test_anomalies_stand_out_from_the_same_fleet_without_them() -> None:
    ticks = 1500
    calm = grid(Fleet(200, STEP_MS, 0, seed=7), ticks)
    fleet = Fleet(200, STEP_MS, 0, seed=7, anomalies=1 / 1000)
    block = fleet.ticks(ticks)
    injected = block.value.reshape(ticks, 200)
    usual = np.abs(np.diff(calm, axis=0)).mean(axis=0)
    touched = np.zeros(calm.shape, dtype=bool)
    for label in block.labels:
        s = fleet.names.index(label.series)
        first, last = (round(t / STEP_MS - s / 200) for t in (label.start, label.end))
        touched[first : last + 1, s] = True
        off = np.abs(injected - calm)[first : last + 1, s] / usual[s]
        if label.kind == "flat_line":
            assert np.unique(injected[max(first - 1, 0) : last + 1, s]).size == 1, "stuck at the last value before"
        elif last < ticks - 1:
            assert off.max() > 5, label
    np.testing.assert_array_equal(injected[~touched], calm[~touched], "nothing else is changed")
