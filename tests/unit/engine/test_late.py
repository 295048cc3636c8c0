"""Readings that come after their time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream_gru import settings
from stream_gru.columns import Floats, Forecasts, Level, Readings
from stream_gru.engine import late
from stream_gru.engine.row import PAST
from stream_gru.engine.stepper import Stepper

MINUTE = 60_000
START = 1_700_000_000_000
NAN = float("nan")


class Feed:
    """One series of an engine, at given minutes."""

    def __init__(self, features: int = 1, min_n: int = 10, gaps: settings.Gaps | None = None) -> None:
        detector = settings.Detector(min_n_samples_seen=min_n)
        light = Path("light")  # the model does not matter
        self.engine = Stepper(light, features=features, capacity=4, device="cpu", detector=detector, gaps=gaps)
        self.engine.arena.open(0)
        self.slot = self.engine.arena.admit(0, [b"s"])
        self.offset = 0

    def __call__(self, minutes: object, value: object) -> Forecasts:
        time = START + np.rint(np.asarray(minutes, float) * MINUTE).astype(np.int64)
        n, self.offset = len(time), self.offset + len(time)
        table = np.asarray(value, float).reshape(n, -1)
        return self.engine.step(Readings(np.repeat(self.slot, n), np.arange(self.offset - n, self.offset), time, table))

    def row(self) -> bytes:
        return self.engine.arena.read(self.slot).tobytes()


def wave(n: int) -> Floats:
    return np.sin(np.arange(n) / 5) + np.random.default_rng(0).normal(0, 0.05, n)


@pytest.mark.parametrize("fraction", [0, 0.5])
@pytest.mark.parametrize("back", range(1, PAST))
def test_a_late_reading_is_held_against_what_it_would_have_been_in_time(back: int, fraction: float) -> None:
    values, feed, in_time = wave(51), Feed(), Feed()
    at = 49 - back + fraction
    feed(np.arange(50), values[:50])
    before = feed.row()
    out = feed([at], values[50:])
    known = int(at) + 1
    in_time(np.arange(known), values[:known])
    expected = in_time([at], values[50:])
    for name in ("y", "yhat", "lower", "upper"):
        np.testing.assert_allclose(getattr(out, name), getattr(expected, name), rtol=1e-6, atol=1e-6)
    assert out.level[0] == Level.LATE
    assert np.isfinite(out.anomaly_score[0])
    assert np.isnan(out.ahead).all()
    assert feed.row() == before


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["carry", "impute"])
@pytest.mark.parametrize("seed", range(4))
def test_so_it_is_with_uneven_and_equal_times_and_features_that_are_missing(seed: int, policy: str) -> None:
    rng = np.random.default_rng(seed)
    gaps = settings.Gaps.model_validate({"policy": policy, "after": 1e6})  # null values are filled in, gaps aren't
    times = np.cumsum(rng.choice([0, 0.5, 1, 3], 40))
    values = rng.normal(size=(40, 2))
    values[rng.random((40, 2)) < 0.3] = NAN
    whole = Feed(2, gaps=gaps)
    whole(times, values)
    moved = np.isfinite(values).any(1) | (policy == "impute")
    reach = times[np.flatnonzero(moved)[-PAST]]
    for at in rng.uniform(reach, times[-1], 5):
        known = int(np.searchsorted(times, at, "right"))
        part = Feed(2, gaps=gaps)
        part(times[:known], values[:known])
        expected, late_one = part([at], [[0.0, 0.0]]), whole([at], [[0.0, 0.0]])
        np.testing.assert_allclose(late_one.yhat, expected.yhat, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(late_one.upper, expected.upper, rtol=1e-6, atol=1e-6)


def test_nothing_is_said_where_the_ring_does_not_reach() -> None:
    feed = Feed()
    feed(np.arange(50), wave(50))
    out = feed([49.9 - PAST, -100], [0, 0])
    assert (out.level == Level.LATE).all()
    assert np.isnan([out.yhat, out.lower, out.upper]).all()
    assert np.isnan([out.anomaly_score, out.anomaly_grade]).all()
    assert not out.is_anomaly.any()


def test_of_a_feature_that_had_no_value_yet_nothing_stood() -> None:
    feed = Feed(2)
    feed([0, 1], [[1, NAN], [2, NAN]])
    out = feed([0.5], [[0, 0]])
    assert np.isfinite(np.stack([out.yhat, out.lower, out.upper])[:, 0]).tolist() == [[True, False]] * 3


def test_a_young_series_gives_a_forecast_and_no_score() -> None:
    feed = Feed(min_n=64)
    feed(np.arange(5), wave(5))
    out = feed([2.5], [900])
    assert np.isfinite(out.yhat[0, 0])
    assert np.isnan(out.anomaly_score[0])
    assert not out.is_anomaly[0]


@pytest.mark.parametrize("min_n", [5, 6])
def test_a_late_reading_is_scored_from_the_age_on_at_which_others_are(min_n: int) -> None:
    feed = Feed(min_n=min_n)
    feed(np.arange(5), wave(5))
    assert np.isfinite(feed([2.5], [0]).anomaly_score[0]) == (min_n == 5)


def test_the_score_is_the_distance_in_half_intervals() -> None:
    feed = Feed()
    feed.engine.detector = settings.Detector(min_n_samples_seen=10)
    feed(np.arange(50), wave(50))
    first = feed([45.5], [0])
    yhat, lower, upper = (float(x[0, 0]) for x in (first.yhat, first.lower, first.upper))
    limit = late.LIMIT
    inside, above, below = (
        yhat + 0.99 * limit * (upper - yhat),
        yhat + 2 * limit * (upper - yhat),
        yhat - 2 * limit * (yhat - lower),
    )
    out = feed([45.5] * 3, [inside, above, below])
    np.testing.assert_allclose(out.anomaly_score, [0.99, 2, 2], rtol=1e-6)
    np.testing.assert_allclose(out.anomaly_grade, [0, 0.5, 0.5], atol=1e-6)
    assert out.is_anomaly.tolist() == [False, True, True]
    assert (out.level == Level.LATE).all()


def test_a_late_anomaly_is_no_alert_and_opens_and_closes_nothing() -> None:
    feed = Feed()
    feed(np.arange(50), wave(50))
    out = feed([47.5, 50, 47.5, 51], [500, np.sin(10), 500, np.sin(10.2)])
    assert out.is_anomaly.tolist() == [True, False, True, False]
    assert not out.alert.any()
    assert not out.closes.any()
    assert np.isnan(out.alert_score[[0, 2]]).all()


def test_late_nulls_and_features_one_by_one() -> None:
    feed = Feed(2)
    values = np.stack([wave(50), wave(50)[::-1]], axis=1)
    values[46:, 1] = NAN  # what stood still stands
    feed(np.arange(50), values)
    ordinary = values[48, 0]
    out = feed([48.5, 48.5, 48.5, 44.5], [[NAN, NAN], [ordinary, 900], [ordinary, NAN], values[44]])
    assert np.isfinite(out.yhat).all()
    assert np.isnan(out.anomaly_score[0])
    assert out.is_anomaly.tolist() == [False, True, False, False]
    assert out.yhat[0, 1] == out.yhat[1, 1]
    short = Feed(2)
    short(np.arange(46), values[:46])
    np.testing.assert_allclose(out.yhat[1, 1], short([46], [[0, 0]]).yhat[0, 1], rtol=1e-6)


@pytest.mark.slow
def test_the_filler_of_a_gap_that_comes_late_is_held_against_the_imputed_forecasts() -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, 400)
    feed, values = Feed(gaps=settings.Gaps(policy="impute")), np.sin(np.arange(400) / 3) + noise
    keep = np.r_[np.arange(380), 384]
    assert feed(keep, values[keep]).imputed[-1] == 4
    out = feed([381, 382, 383], values[381:384])
    assert np.abs(out.yhat[:, 0] - values[381:384]).max() < 0.5
    assert not out.is_anomaly.any()


@pytest.mark.parametrize("start", [0.0, 1e12])
def test_a_counter_keeps_its_precision_also_after_a_jump(start: float) -> None:
    feed, values = Feed(), wave(50)
    feed(np.arange(50), start + values)
    feed([50], [1e15])
    out = feed([49.5], [start + values[49]])
    assert abs(out.yhat[0, 0] - start) < 2
    assert 0 < out.upper[0, 0] - out.lower[0, 0] < 10


@pytest.mark.slow
def test_few_ordinary_late_readings_are_flagged() -> None:
    rng, flags = np.random.default_rng(5), []
    for draw in (rng.normal, rng.standard_normal, rng.laplace):
        feed = Feed(min_n=64)
        feed(np.arange(300), draw(size=300))
        flags.append(feed(np.full(1000, 297.5), draw(size=1000)).is_anomaly.mean())
    assert max(flags) < 0.01
