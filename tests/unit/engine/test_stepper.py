from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stream_gru import settings
from stream_gru.columns import Forecasts, Level, Readings
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import BundleError, SettingsError
from stream_gru.models import bundle
from stream_gru.models.network import Network
from stream_gru.models.scaling import Scaling

MINUTE = 60_000
NAN = float("nan")


LIGHT = Path("light")  # where the model does not matter: its steps take half the time


def make(features: int = 1, min_n: int = 64, bundle: Path = LIGHT) -> Stepper:
    detector = settings.Detector(min_n_samples_seen=min_n)
    made = Stepper(bundle, features=features, capacity=50, device="cpu", detector=detector)
    made.arena.open(0)
    return made


class Feed:
    """One series of an engine, reading by reading."""

    def __init__(self, engine: Stepper, name: bytes = b"s") -> None:
        self.engine, self.slot = engine, engine.arena.admit(0, [name])
        self.offset, self.time = -1, 1_700_000_000_000

    def __call__(self, *values: object, gap: int = MINUTE, offset: int | None = None) -> Forecasts:
        """Readings one after the other; a tuple is a reading of several features."""
        n = len(values)
        table = np.array(values, float).reshape(n, -1)
        times = self.time + gap * np.arange(1, n + 1)
        offsets = np.arange(n) + (self.offset + 1 if offset is None else offset)
        self.time, self.offset = max(self.time, int(times[-1])), max(self.offset, int(offsets[-1]))
        return self.engine.step(Readings(np.repeat(self.slot, n), offsets, times, table))

    def row(self) -> bytes:
        return self.engine.arena.read(self.slot).tobytes()


def test_first_points_are_forecast_by_what_there_is() -> None:
    out = Feed(make())(10.0, 11.0, 10.5, 10.7)
    assert np.isnan(out.yhat[0])
    assert out.yhat[1] == pytest.approx(10.0, abs=1e-6)
    assert (np.abs(out.yhat[2:] - 10.7) < 1.5).all()
    assert (out.level == Level.WARMUP).all()
    assert np.isnan(out.anomaly_score).all()
    assert not out.is_anomaly.any()
    assert (np.diff(out.ahead[:, :, [1, 0, 2], 0], axis=2) >= 0).all()  # lower, median, upper


def test_covered_and_late_readings_change_nothing() -> None:
    feed = Feed(make())
    feed(*np.sin(np.arange(30)))
    before = feed.row()
    late = feed(5.0, gap=-MINUTE)
    assert (late.level[0], feed.row()) == (Level.LATE, before)
    assert late.y[0, 0] == 5.0
    assert np.isnan([late.anomaly_score[0], late.alert_score[0]]).all()
    covered = feed(5.0, 6.0, offset=28)
    assert (covered.level == Level.COVERED).all()
    assert feed.row() == before
    assert feed.engine.arena.dirty == 1
    feed.engine.arena.cut(0)
    feed(5.0, offset=3)
    assert feed(5.0, gap=-10 * MINUTE).level[0] == Level.LATE
    assert feed.engine.arena.dirty == 0


def test_an_equal_timestamp_is_an_ordinary_reading() -> None:
    feed = Feed(make())
    feed(*np.sin(np.arange(5)))
    assert feed(0.5, gap=0).level[0] == Level.WARMUP


def test_the_base_of_a_feature_is_its_first_value_and_stays() -> None:
    feed = Feed(make(2))
    feed((NAN, 1.0), (5.0, 2.0), (NAN, NAN), (6.0, 3.0))
    assert feed.engine.arena.take(feed.slot)["base"].tolist() == [[5.0, 1.0]]


def test_a_missing_reading_moves_only_offset_and_time() -> None:
    feed = Feed(make(min_n=5))
    feed(*np.sin(np.arange(30)))
    before = feed.engine.layout.parse([feed.row()])[0]
    out = feed(NAN)
    after = feed.engine.layout.parse([feed.row()])[0]
    assert out.level[0] == Level.MISSING
    assert np.isnan([out.yhat[0, 0], out.anomaly_score[0], out.alert_score[0], out.ahead[0, 0, 0, 0]]).all()
    assert (after["offset"], after["timestamp"]) == (before["offset"] + 1, before["timestamp"] + MINUTE)
    assert after["body"].tobytes() == before["body"].tobytes()
    assert (after["last"], after["seen"]) == (before["last"], before["seen"])
    assert feed.engine.arena.dirty == 1


def test_features_are_independent_and_may_be_missing_one_by_one() -> None:
    rng = np.random.default_rng(0)
    both, alone = Feed(make(2, min_n=10)), Feed(make(1, min_n=10))
    y = rng.normal(size=(40, 2))
    holes = rng.random(40) < 0.3
    y[holes, 1] = np.nan
    together, single = both(*map(tuple, y)), alone(*y[:, 0])
    np.testing.assert_allclose(together.yhat[:, 0], single.yhat[:, 0], atol=1e-6)
    np.testing.assert_allclose(together.ahead[..., 0], single.ahead[..., 0], atol=1e-6)
    assert np.isnan(together.yhat[holes, 1]).all()
    assert (together.level[20:] != Level.MISSING).all()
    assert both((NAN, NAN)).level[0] == Level.MISSING


@pytest.mark.slow
def test_a_spike_is_flagged_alerted_once_and_closed() -> None:
    rng = np.random.default_rng(1)
    feed = Feed(make())
    feed(*rng.normal(size=400))
    out = feed(40.0, 41.0, 0.3, -0.2, *rng.normal(size=96))
    run = int(np.argmin(out.is_anomaly))
    assert 2 <= run < 50
    assert (out.level[:run] == Level.ANOMALY).all()
    assert (out.anomaly_score[:run] > 1).all()
    assert ((out.anomaly_grade[:run] > 0) & (out.anomaly_grade[:run] < 1)).all()
    assert np.flatnonzero(out.alert).tolist() == [0]
    assert out.alert_score[0] == out.anomaly_score[0]
    assert (out.alert_score[1:] <= 1).all()
    assert np.flatnonzero(out.closes).tolist() == [run]
    assert (out.anomaly_grade[run:] == 0).all()


def test_a_null_value_neither_closes_nor_ages_what_is_anomalous() -> None:
    feed = Feed(make(min_n=20))
    assert feed(*np.random.default_rng(1).normal(size=100), 60.0).is_anomaly[100]
    before = feed.engine.arena.take(feed.slot)["alarm"]
    out = feed(NAN)
    assert (out.level[0], out.closes[0], out.is_anomaly[0]) == (Level.MISSING, False, False)
    np.testing.assert_array_equal(feed.engine.arena.take(feed.slot)["alarm"], before)
    after = feed(*np.random.default_rng(2).normal(size=60))
    assert np.flatnonzero(after.closes).tolist() == [int(np.argmin(after.is_anomaly))]


@pytest.mark.slow
def test_more_sensitivity_lowers_the_thresholds() -> None:
    rng = np.random.default_rng(2)
    y = [*rng.normal(size=400), 6.0, *rng.normal(size=20)]
    scores = []
    for sensitivity in (0.01, 1.0):
        engine = Stepper(LIGHT, capacity=5, device="cpu", detector=settings.Detector(sensitivity=sensitivity))
        engine.arena.open(0)
        scores.append(Feed(engine)(*y).anomaly_score[150:])
    assert (scores[1] >= scores[0]).all()
    assert scores[1].mean() > 1.5 * scores[0].mean()


@pytest.mark.slow
def test_an_anomaly_of_several_features_is_explained() -> None:
    rng = np.random.default_rng(6)
    feed = Feed(make(3))
    usual = np.array([0, 100, 1e4])
    y = rng.normal(size=(403, 3)) + usual
    y[400:, 1] += 30
    out = feed(*map(tuple, y))
    assert out.is_anomaly[400:].all()
    shares = out.relevant_attribution[400:]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares[:, 1] > 0.9).all()
    np.testing.assert_allclose(out.expected_values[400:], [usual] * 3, atol=3)
    assert np.isnan(out.relevant_attribution[~out.is_anomaly]).all()
    assert np.isnan(out.expected_values[~out.is_anomaly]).all()


@pytest.mark.slow
@pytest.mark.parametrize("start", [1e9, 1e12])
def test_a_counter_keeps_its_precision(start: float) -> None:
    rng = np.random.default_rng(3)
    steps = rng.normal(0, 1, 300)
    near, far = Feed(make()), Feed(make())
    # The magnitude itself is an input, so the forecasts may differ a little, but not by the rounding of 1e12.
    a, b = near(*(1000 + steps)), far(*(start + steps))
    error = np.abs(b.yhat[100:, 0] - b.y[100:, 0]).mean()
    assert error < 1.2 * np.abs(a.yhat[100:, 0] - a.y[100:, 0]).mean()


@pytest.mark.parametrize("values", [[0.0] * 200, [1e30, -1e30] * 100, [1e-300, 0.0] * 100, [5.0] * 150 + [1e30] * 50])
def test_odd_series_give_finite_numbers(values: list[float]) -> None:
    out = Feed(make(min_n=10))(*values)
    assert np.isfinite(out.yhat[1:]).all()
    assert np.isfinite(out.ahead).all()
    assert np.isfinite(out.anomaly_score[10:]).all()


def test_a_flat_line_is_normal_until_it_moves() -> None:
    feed = Feed(make())
    out = feed(*[0.1 + 0.2] * 150, *[0.3] * 50)  # differ by rounding only
    assert not out.is_anomaly.any()
    assert feed(1.0).is_anomaly[0]


def test_no_readings_give_no_forecasts() -> None:
    empty = np.empty(0, np.int64)
    assert len(make(2).step(Readings(empty, empty, empty, np.empty((0, 2))))) == 0


def test_a_reload_starts_every_row_anew(tmp_path: Path) -> None:
    description = bundle.Description(name="small", network=Network(hidden=8), horizons=(3,))
    bundle.save(tmp_path, description, bundle.build(description))
    engine = make()
    Feed(engine)(1.0, 2.0)
    was = engine.layout.version
    engine.reload(tmp_path)
    assert engine.arena.partitions == [0]
    assert len(engine.arena) == 0
    assert engine.layout.version != was
    assert (engine.steps, engine.bundle.horizons) == ((1, 3), (3,))
    assert Feed(engine)(1.0).ahead.shape == (1, 2, 3, 1)
    with pytest.raises(BundleError):
        engine.reload(tmp_path / "nowhere")
    assert engine.bundle.description.name == "small"


@pytest.mark.parametrize("bundle", ["light", "zero-shot"])
def test_rows_survive_the_store(bundle: str) -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(size=100)
    straight, moved, other = (Feed(make(min_n=10, bundle=Path(bundle)), name) for name in (b"s", b"s", b"other"))
    expected = straight(*y)
    moved(*y[:50])
    other.engine.arena.close(0)
    other.engine.arena.open(0)
    other.slot = other.engine.arena.insert(0, [b"s"], [moved.row()])
    other.time, other.offset = moved.time, moved.offset
    rest = other(*y[50:])
    np.testing.assert_array_equal(rest.yhat, expected.yhat[50:])
    np.testing.assert_array_equal(rest.anomaly_score, expected.anomaly_score[50:])


def test_a_device_that_is_not_there_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(SettingsError, match="finds no CUDA device"):
        Stepper(device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(size=300)
    outs = []
    for device in ("cpu", "cuda"):
        engine = Stepper(capacity=10, device=device)
        engine.arena.open(0)
        outs.append(Feed(engine)(*y))
    np.testing.assert_allclose(outs[0].yhat, outs[1].yhat, atol=1e-3)


@pytest.mark.parametrize(
    ("bundle", "horizons", "what"),
    [("light", (24,), "light@.* forecasts the steps 1, 12, 36 only"), ("zero-shot", (1, 5), "between 2 and 1000")],
)
def test_steps_that_cannot_be_had_are_said(bundle: str, horizons: tuple[int, ...], what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        Stepper(Path(bundle), horizons=horizons)


@pytest.mark.parametrize("features", [1, 2, 3])
def test_a_bundle_that_scales_other_features_is_refused(features: int) -> None:
    light = bundle.load(LIGHT)
    for scaled in (1, 2):
        scaling = Scaling(kind="standard", loc=(0.0,) * scaled, scale=(1.0,) * scaled)
        two = replace(light, description=light.description.model_copy(update={"scaling": scaling}))
        if scaled in (1, features):
            assert Stepper(two, features=features, capacity=1, device="cpu").bundle is two
        else:
            with pytest.raises(BundleError, match=f"scales 2 features; the readings have {features}"):
                Stepper(two, features=features, capacity=1, device="cpu")


def test_all_levels_of_the_forecast_are_there() -> None:
    engine = Stepper(capacity=1)
    engine.arena.open(0)
    (slot,) = engine.arena.admit(0, [b"a"])
    n = 100
    value = np.random.default_rng(0).normal(size=(n, 1))
    out = engine.step(Readings(np.full(n, slot), np.arange(n), 1_700_000_000_000 + 1000 * np.arange(n), value))
    low, middle, high = (out.quantiles[1:, engine.levels.index(level)] for level in (0.05, 0.5, 0.95))
    assert (np.diff(out.quantiles[1:], axis=1) >= 0).all()
    np.testing.assert_array_equal(np.stack([low, middle, high]), [out.lower[1:], out.yhat[1:], out.upper[1:]])


def test_a_bundle_that_cannot_forecast_what_is_asked_changes_nothing() -> None:
    engine = Stepper(capacity=1, horizons=(24,))
    before = engine.bundle.name
    with pytest.raises(SettingsError, match="steps 1, 12, 36 only"):
        engine.reload(bundle.load(Path("light")))
    assert engine.bundle.name == before
    assert engine.steps == (1, 24, engine.bundle.description.lead)
