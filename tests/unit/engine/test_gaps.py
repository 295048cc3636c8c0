"""Gaps, null values, uneven times: the usual interval, and what each policy makes of a series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_gru import settings
from stream_gru.columns import Floats, Forecasts, Ints, Level, Readings
from stream_gru.engine import gaps
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import SettingsError
from stream_gru.models import bundle

MINUTE = 60_000
START = 1_700_000_000_000
NAN = float("nan")


def make(
    policy: str = "carry", features: int = 1, folder: Path | None = None, min_n: int = 10, **more: float
) -> Stepper:
    engine = Stepper(
        folder or Path("light"),  # in half the time
        features=features,
        capacity=8,
        device="cpu",
        detector=settings.Detector(min_n_samples_seen=min_n),
        gaps=settings.Gaps.model_validate({"policy": policy, **more}),
    )
    engine.arena.open(0)
    return engine


def feed(engine: Stepper, minutes: Ints | list[float], value: Floats | list[float], name: bytes = b"s") -> Forecasts:
    """Readings of one series, from the next offset on."""
    slot = engine.arena.admit(0, [name])
    first = int(engine.arena.heads["offset"][slot[0]]) + 1
    time = START + np.rint(np.asarray(minutes) * MINUTE).astype(np.int64)
    table = np.asarray(value, float).reshape(len(time), -1)
    return engine.step(Readings(np.repeat(slot, len(time)), np.arange(first, first + len(time)), time, table))


def head(engine: Stepper, name: bytes = b"s") -> np.void:
    one: np.void = engine.arena.take(engine.arena.lookup(0, [name]))[0]
    return one


def wave(n: int, seed: int = 0) -> Floats:
    return np.sin(np.arange(n) / 5) + np.random.default_rng(seed).normal(0, 0.05, n)


def learn(times: npt.ArrayLike) -> float:
    interval = np.zeros(1)
    for gap in np.diff(times):
        interval = gaps.usual(interval, np.array([gap]))
    return float(interval[0])


def test_the_usual_interval_of_a_regular_series_is_exact_and_a_pause_hardly_moves_it() -> None:
    times = 60_000.0 * np.arange(50)
    assert learn(times[:2]) == learn(times) == 60_000
    times[30:] += 86_400_000
    assert learn(times[:31]) < 1.13 * 60_000
    assert learn(times) == pytest.approx(60_000, rel=0.02)


def test_the_usual_interval_follows_a_lasting_change_and_survives_a_wrong_start() -> None:
    slower = np.cumsum(np.r_[np.full(50, 1.0), np.full(12, 3.0)])
    assert learn(slower) == pytest.approx(3, rel=0.25)
    assert learn(np.r_[0, 1e3 + np.arange(150.0)]) == pytest.approx(1, rel=0.01)
    uneven = np.random.default_rng(0).exponential(10, 2000).cumsum()
    assert learn(uneven) == pytest.approx(10, rel=0.3)


@given(st.floats(1, 1e12), st.floats(1e-6, 1e6))
def test_a_time_between_readings_counts_at_most_twice_and_at_least_half(usual: float, ratio: float) -> None:
    (new,) = gaps.usual(np.array([usual]), np.array([usual * ratio]))
    assert new == pytest.approx(usual * (1 + (min(max(ratio, 0.5), 2) - 1) / 8))


def test_equal_times_late_and_covered_readings_do_not_touch_the_usual_interval() -> None:
    engine = make()
    feed(engine, [0, 1, 2, 2, 2, 3], wave(6))
    assert head(engine)["interval"] == MINUTE
    feed(engine, [1.5], [0])
    slot = engine.arena.lookup(0, [b"s"])
    engine.step(Readings(slot, np.array([3]), np.array([START + 900 * MINUTE]), np.zeros((1, 1))))
    assert head(engine)["interval"] == MINUTE


@pytest.mark.parametrize(("ratio", "lacking"), [(1, 0), (1.49, 0), (1.5, 1), (2.2, 1), (3, 2), (30.4, 29)])
def test_how_many_readings_a_gap_lacks(ratio: float, lacking: int) -> None:
    assert gaps.missed(np.array([60.0]), np.array([60.0 * ratio]), 1.5) == lacking


def test_without_a_usual_interval_nothing_lacks() -> None:
    assert gaps.missed(np.zeros(2), np.array([0.0, 1e9]), 1.5).tolist() == [0, 0]


class Inputs:
    """A watch that keeps what the network read last."""

    def __call__(self, network: object, index: object, given: object, state: object) -> None:
        self.given = given.numpy().copy()  # type: ignore[attr-defined]  # a tensor


def test_the_network_is_told_the_time_since_the_last_value() -> None:
    """Of the feature itself: null values between don't shorten it. Half of the logarithm of the seconds."""
    read = {}
    for minutes in (1, 2, 60, 1440):
        engine = make()
        feed(engine, np.arange(20), wave(20))
        feed(engine, [19.5], [NAN])
        engine.watch = watch = Inputs()
        feed(engine, [19 + minutes], [0.5])
        read[minutes] = watch.given[0]
    differ = np.ptp(list(read.values()), axis=0) > 1e-6
    gap = np.array([0.5 * np.log(60 * minutes) for minutes in read])
    told = np.abs(np.array(list(read.values())) - gap[:, None]).max(0) < 1e-3
    assert (told & differ).any()


def test_carry_goes_on_where_it_stopped() -> None:
    engine = make()
    out = feed(engine, np.r_[np.arange(40), 500], wave(41))
    assert out.level[-1] != Level.WARMUP
    assert (out.imputed == 0).all()
    assert head(engine)["seen"] == 41


def test_reset_starts_anew_at_the_first_reading_after_a_gap() -> None:
    engine, new = make("reset"), make("reset")
    values = wave(60)
    out = feed(engine, np.r_[np.arange(40), 100 + np.arange(20)], values)
    assert (out.level[10:40] != Level.WARMUP).all()
    assert (out.level[40:50] == Level.WARMUP).all()
    assert np.isnan(out.yhat[40])
    fresh = feed(new, 100 + np.arange(20), values[40:])
    np.testing.assert_allclose(out.yhat[40:], fresh.yhat, atol=1e-6)
    assert head(engine)["offset"] == 59
    assert head(engine)["interval"] == MINUTE
    assert engine.arena.dirty == 1


def test_reset_waits_for_as_many_usual_intervals_as_it_is_told() -> None:
    times = np.r_[np.arange(40), 49]
    assert feed(make("reset"), times, wave(41)).level[-1] != Level.WARMUP
    assert feed(make("reset", after=11), times, wave(41)).level[-1] != Level.WARMUP
    assert feed(make("reset", after=10), times, wave(41)).level[-1] == Level.WARMUP


@pytest.mark.parametrize("seen", [gaps.SETTLED - 1, gaps.SETTLED])
def test_a_gap_is_known_as_one_from_some_readings_on_whichever_feature_they_had(seen: int) -> None:
    engine = make("reset", features=2)
    values = np.stack([wave(seen + 1), np.full(seen + 1, NAN)], axis=1)
    feed(engine, np.r_[np.arange(seen), 500], values)
    assert head(engine)["seen"].tolist() == [1 if seen == gaps.SETTLED else seen + 1, 0]


def test_reset_closes_what_was_anomalous() -> None:
    engine = make("reset", min_n=64)
    out = feed(engine, np.r_[np.arange(301), 900, 901], np.r_[np.random.default_rng(1).normal(size=300), 40, 0, 0])
    assert out.is_anomaly[300:].tolist() == [True, False, False]
    assert out.closes[300:].tolist() == [False, True, False]


def test_impute_fills_missed_readings_as_null_values_at_their_times() -> None:
    values = wave(60)
    skipped, nulls = make("impute"), make("impute")
    keep = np.r_[np.arange(40), np.arange(45, 60)]
    out = feed(skipped, keep, values[keep])
    full = np.where(np.isin(np.arange(60), keep), values, NAN)
    other = feed(nulls, np.arange(60), full)
    assert out.imputed.tolist() == [0] * 40 + [5] + [0] * 14
    assert other.imputed.tolist() == [0] * 40 + [1] * 5 + [0] * 15
    assert (other.level[40:45] == Level.MISSING).all()
    np.testing.assert_allclose(out.yhat[40:], other.yhat[45:], atol=1e-6)
    np.testing.assert_allclose(out.ahead[40:], other.ahead[45:], atol=1e-6)
    assert head(skipped)["offset"] == 54
    assert head(skipped)["filled"] == 0


def test_what_is_imputed_are_the_forecasts_themselves() -> None:
    engine = make("impute")
    before = feed(engine, np.arange(40), wave(40))
    out = feed(engine, [40], [NAN])
    assert out.yhat[0, 0] == pytest.approx(before.ahead[-1, 0, 0, 0])
    assert head(engine)["last"] == pytest.approx(out.yhat[0, 0])
    assert np.isnan([out.y[0, 0], out.anomaly_score[0]]).all()


@pytest.mark.slow
def test_an_imputed_series_keeps_its_phase_over_a_gap() -> None:
    values = np.sin(np.arange(400) / 3)
    keep = np.r_[np.arange(380), np.arange(386, 400)]
    errors = [
        np.abs(feed(make(p), keep, values[keep]).yhat[380:383, 0] - values[386:389]).mean() for p in ("carry", "impute")
    ]
    assert errors[1] < 0.7 * errors[0]


def test_impute_fills_no_more_than_its_limit_in_a_row() -> None:
    engine = make("impute", limit=4)
    assert feed(engine, np.r_[np.arange(40), 140], wave(41)).imputed[-1] == 4
    out = feed(engine, 141 + np.arange(8), [NAN] * 8)
    assert out.imputed.tolist() == [1] * 4 + [0] * 4
    assert np.isfinite(out.yhat[:4]).all()
    assert np.isnan(out.yhat[4:]).all()
    assert feed(engine, [149, 150], [0.0, NAN]).imputed.tolist() == [0, 1]


@pytest.mark.parametrize(("lacking", "steps"), [(3, 3), (4, 4), (1000, 4)])
def test_a_long_gap_takes_no_more_steps_than_the_limit(lacking: int, steps: int) -> None:
    engine = make("impute")
    feed(engine, [0, 1], [1, 2])
    slot = engine.arena.lookup(0, [b"s"])
    after = Readings(slot, np.array([2]), np.array([START + MINUTE * (lacking + 2)]), np.ones((1, 1)))
    between = list(gaps.between(after, engine.arena.take(slot), np.array([lacking]), 4))
    assert [int(missed.timestamp[0] - START) // MINUTE for _, missed in between] == [2, 3, 4, 5][:steps]


def test_a_young_series_is_not_imputed_and_one_never_seen_has_nothing_to_go_by() -> None:
    engine = make("impute")
    out = feed(engine, [0, 1, 2, 50, 51], [NAN, 1, 2, 3, 4])
    assert out.imputed.tolist() == [0] * 5


def test_the_slower_pace_of_a_series_ends_the_imputing() -> None:
    out = feed(make("impute"), np.r_[np.arange(40), 40 + 4 * np.arange(40)], wave(80))
    assert out.imputed[45] > 0
    assert (out.imputed[60:] == 0).all()


@pytest.mark.parametrize("how", ["mask", "forward", "forecast"])
def test_impute_goes_before_what_the_bundle_does_with_null_values(tmp_path: Path, how: str) -> None:
    start = bundle.load(Path("light"))
    bundle.save(tmp_path, start.description.model_copy(update={"missing": how}), start.forecaster)
    values = wave(60)
    values[40:45] = NAN
    plain, imputing = (feed(make(policy, folder=tmp_path), np.arange(60), values) for policy in ("carry", "impute"))
    same = feed(make("impute"), np.arange(60), values)
    np.testing.assert_allclose(imputing.yhat, same.yhat, atol=1e-6)
    assert plain.imputed[40:45].tolist() == [int(how != "mask")] * 5
    assert (np.abs(plain.yhat[45:] - imputing.yhat[45:]).max() > 1e-3) == (how != "forecast")


def test_features_are_imputed_one_by_one_and_a_missed_reading_whole() -> None:
    engine = make("impute", features=2)
    values = np.stack([wave(50), wave(50, 1)], axis=1)
    values[20:25, 1] = NAN
    out = feed(engine, np.r_[np.arange(40), 42 + np.arange(10)], values)
    assert out.imputed.tolist() == [0] * 20 + [1] * 5 + [0] * 15 + [2] + [0] * 9
    assert (out.level[20:25] == Level.NORMAL).all()
    assert head(engine)["seen"].tolist() == [52, 52]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["carry", "reset", "impute"])
def test_a_series_with_uneven_times_works(policy: str) -> None:
    rng = np.random.default_rng(3)
    times = np.sort(np.round(rng.exponential(1, 400).cumsum(), 1))
    times[100:110] = times[100]  # duplicates
    out = feed(make(policy), times, np.sin(times / 20) + rng.normal(0, 0.1, 400))
    assert np.isfinite(out.yhat[1:]).all()
    assert out.is_anomaly.mean() < 0.05
    assert np.abs(out.yhat[50:] - out.y[50:]).mean() < 0.3


def test_many_series_with_gaps_of_their_own_do_not_mix() -> None:
    together, values = make("impute"), wave(50)
    names = [b"a", b"b", b"c"]
    times = [np.r_[np.arange(40), 40 + lack + np.arange(10)] for lack in (0, 3, 30)]
    slots = together.arena.admit(0, names)
    outs = [
        together.step(
            Readings(
                slots, np.full(3, t), START + MINUTE * np.array([time[t] for time in times]), np.full((3, 1), values[t])
            )
        )
        for t in range(50)
    ]
    for i, time in enumerate(times):
        alone = feed(make("impute"), time, values)
        assert [int(out.imputed[i]) for out in outs] == alone.imputed.tolist()
        np.testing.assert_allclose([out.yhat[i, 0] for out in outs], alone.yhat[:, 0], atol=1e-6)


@pytest.mark.parametrize("wrong", [{"policy": "guess"}, {"after": 1.0}, {"limit": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="gaps"):
        settings.load(flags={f"gaps.{name}": value for name, value in wrong.items()})
