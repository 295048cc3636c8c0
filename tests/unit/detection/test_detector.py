"""The detector on made-up series where it is known what is anomalous; thresholds leave room for other weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stream_gru import settings
from stream_gru.columns import Forecasts, Level, Readings
from stream_gru.detection import detector
from stream_gru.detection.channels import AVERAGES, CHANNELS, DEVIATIONS, LEVELS
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import SettingsError
from stream_gru.training.fleet import Fleet, Label

pytestmark = pytest.mark.slow

SERIES, TICKS, STEP = 120, 3000, 60_000
AFTER = 5 * STEP  # an anomaly may be flagged so long after its end
ECHO = 100 * STEP  # the return to normal is a change as well


@pytest.fixture(scope="module")
def watched() -> tuple[Fleet, list[Label], Readings, Forecasts]:
    fleet = Fleet(SERIES, STEP, 1_700_000_000_000, seed=11, anomalies=1 / 1200, gaps=1 / 3000, nulls=0.001, quiet=400)
    block = fleet.ticks(TICKS)
    engine = Stepper(capacity=SERIES, device="cpu")
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


def test_false_alarms_are_rare_in_established_series(
    watched: tuple[Fleet, list[Label], Readings, Forecasts],
) -> None:
    fleet, labels, readings, out = watched
    clean = np.isin(out.level, (Level.NORMAL, Level.ANOMALY)) & (readings.offset // SERIES >= 1000)
    for label in labels:
        near = (readings.timestamp >= label.start) & (readings.timestamp <= label.end + ECHO)
        clean &= ~(near & (readings.slot == fleet.names.index(label.series)))
    assert clean.sum() > 150_000
    assert out.is_anomaly[clean].mean() <= 1e-3
    assert out.alert[clean].mean() <= 2e-4


def test_intervals_cover_what_they_say(watched: tuple[Fleet, list[Label], Readings, Forecasts]) -> None:
    out = watched[3]
    ripe = (out.level == Level.NORMAL)[:, None]
    inside = (out.y >= out.lower) & (out.y <= out.upper)
    assert 0.86 <= inside[ripe].mean() <= 0.94


def run(series: Sequence[np.ndarray], **chosen: Any) -> list[Forecasts]:
    """Some series, a reading a minute each, side by side: a step of many costs little more than of one."""
    engine = Stepper(capacity=len(series), device="cpu", detector=settings.Detector(**chosen))
    engine.arena.open(0)
    slots = engine.arena.admit(0, [b"%d" % i for i in range(len(series))])
    slot = np.repeat(slots, [len(y) for y in series])
    offset = np.concatenate([np.arange(len(y)) for y in series])
    time = 1_700_000_000_000 + STEP * offset
    out = engine.step(Readings(slot, offset, time, np.concatenate(series)[:, None]))
    return [out.take(slot == one) for one in slots]


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


MADE_UP = {
    "young": np.r_[noise(149), 50.0, noise(10)],
    "stuck": np.r_[noise(1500), np.full(150, 0.1)],
    "flat": np.r_[np.full(400, 7.0), 8.0],
    "new level": np.r_[noise(600), 8 + noise(1300, 1)],
    "bursts": np.r_[noise(1500), 5 * noise(60, 1)],
    **{f"scale {scale:g}": scale * np.r_[noise(600), 9.0, noise(50, 1)] for scale in (1, 1e-6, 1e9)},
}


@pytest.fixture(scope="module")
def made_up() -> dict[str, Forecasts]:
    return dict(zip(MADE_UP, run(list(MADE_UP.values())), strict=True))


def test_a_series_warms_up(made_up: dict[str, Forecasts]) -> None:
    out = made_up["young"]
    assert (out.level[:150] == Level.WARMUP).all()
    assert np.isnan(out.anomaly_score[:150]).all()
    assert not out.is_anomaly[:150].any()
    assert (out.level[150:] != Level.WARMUP).all()
    assert np.isfinite(out.anomaly_score[150:]).all()
    [early] = run([MADE_UP["young"][:150]], min_n_samples_seen=20)
    assert early.level[19] == Level.WARMUP
    assert early.alert[149]


@pytest.mark.parametrize(
    ("direction", "high", "low"), [("both", True, True), ("above", True, False), ("below", False, True)]
)
def test_only_what_lies_in_the_direction_is_anomalous(direction: str, high: bool, low: bool) -> None:
    series = [np.r_[noise(300), up * 12.0, up * 12.0] for up in (1, -1)]
    for out, found in zip(run(series, direction=direction), (high, low), strict=True):
        assert out.alert[300:].any() == found
        assert (out.anomaly_score[300:].max() > 1) == found


def test_a_stuck_sensor_is_flagged_and_alerted(made_up: dict[str, Forecasts]) -> None:
    out = made_up["stuck"]
    assert not out.is_anomaly[1200:1500].any()
    assert out.is_anomaly[1560:].all()
    assert out.alert[1500:].any()


def test_a_flat_line_is_normal_and_its_end_is_not(made_up: dict[str, Forecasts]) -> None:
    out = made_up["flat"]
    assert not out.is_anomaly[:400].any()
    assert out.alert[400]


def test_a_new_level_is_alerted_at_once_stays_up_and_is_adopted_after_a_while(made_up: dict[str, Forecasts]) -> None:
    out = made_up["new level"]
    assert out.alert[600]
    assert out.is_anomaly[600:700].all()
    assert not out.is_anomaly[1800:].any()
    assert out.alert[601:].sum() <= 3


def test_bursts_of_activity_are_flagged(made_up: dict[str, Forecasts]) -> None:
    assert made_up["bursts"].is_anomaly[1520:].mean() > 0.7


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_scores_have_no_scale(made_up: dict[str, Forecasts], scale: float) -> None:
    plain, scaled = made_up["scale 1"], made_up[f"scale {scale:g}"]
    # The size of the values is an input of the model, so forecasts differ a little.
    assert plain.alert[600]
    assert scaled.alert[600]
    np.testing.assert_allclose(scaled.anomaly_score[600:650], plain.anomaly_score[600:650], rtol=0.15)


def test_each_channel_of_one_side_is_left_out_on_the_other() -> None:
    both, above, below = (detector.Constants.on(direction=d) for d in ("both", "above", "below"))
    assert both.weight.sum() == len(CHANNELS)
    sized, active = 5, 2
    for one in (above, below):
        assert one.weight.sum() == sized + (len(CHANNELS) - sized - active) / 2
    assert (above.weight * below.weight).sum() == sized


def test_the_tables_of_what_is_watched_are_in_order() -> None:
    """What `score` relies on, and what rows that are stored already hold."""
    for table in (AVERAGES, CHANNELS, DEVIATIONS):
        names = [row.name for row in table]
        assert len(set(names)) == len(names)
        assert all(row.why for row in table)
    averages = [row.name for row in AVERAGES]
    assert [row.of == "value" for row in AVERAGES] == [True] * LEVELS + [False] * (len(AVERAGES) - LEVELS)
    assert {row.of for row in CHANNELS} <= {*averages, "value", "size", "stillness"}
    assert [row.name for row in CHANNELS[-2:]] == ["activity", "stillness"]
    assert all(row.average in averages for row in DEVIATIONS[:1])
    assert not any(row.average for row in DEVIATIONS[1:])
    assert {row.channel for row in DEVIATIONS} <= {row.name for row in CHANNELS}
    assert detector.FIELDS == {"smoothed": 11, "limit": 1, "usual": 17, "record": 17, "deviation": 4}


def test_the_state_is_small() -> None:
    assert sum(detector.FIELDS.values()) <= 80


@pytest.mark.parametrize(
    ("name", "value"), [("sensitivity", 0), ("sensitivity", -1), ("direction", "up"), ("min_n_samples_seen", 0)]
)
def test_settings_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=rf"detector\.{name}"):
        settings.load(None, {f"detector.{name}": value})
