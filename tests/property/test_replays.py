"""One log, read in batches of four sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream_gru.columns import Forecasts, Readings
from stream_gru.engine.stepper import Stepper
from stream_gru.settings import Detector
from tests.support.batching import run
from tests.support.check import NEAR_THRESHOLD, OUTPUT_CLOSE

SERIES, TICKS = 32, 34
SIZES = (1, 3, 64, 1024)


def log() -> Readings:
    rng = np.random.default_rng(25)
    series = np.tile(np.arange(SERIES), TICKS)
    tick = np.repeat(np.arange(TICKS), SERIES)
    value = 20 + 5 * np.sin(tick / 8 + series) + rng.normal(0, 0.3, len(tick))
    value += 30 * (rng.random(len(tick)) > 0.99)
    value[rng.random(len(tick)) < 0.005] = np.nan
    late = 5000 * (rng.random(len(tick)) < 0.005)
    return Readings(series, np.arange(len(tick)), 1_700_000_000_000 + tick * 1000 - late, value[:, None])


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["light", "zero-shot"])
def test_row_25_a_replay_in_other_batches_agrees(bundle: str) -> None:
    """Within what is promised of an output that is said again; flags differ only beside the threshold."""
    readings = log()
    engine = Stepper(Path(bundle), capacity=SERIES, detector=Detector(min_n_samples_seen=15, sensitivity=100))
    said: dict[int, Forecasts] = {}
    for size in SIZES:
        said[size] = run(engine, readings, list(range(size, len(readings), size)))
    first = said[1]
    assert first.is_anomaly.any()
    relative = np.maximum(1.0, np.nan_to_num(np.abs(readings.value)))
    for size in SIZES[1:]:
        again = said[size]
        worst = 0.0
        for name in ("yhat", "lower", "upper"):
            one, other = getattr(first, name), getattr(again, name)
            assert (np.isnan(one) == np.isnan(other)).all()
            worst = max(worst, float(np.nanmax(np.abs(one - other) / relative)))
        score = first.anomaly_score
        clear = ~(np.abs(score - 1) <= NEAR_THRESHOLD)
        for name in ("is_anomaly", "level", "alert"):
            np.testing.assert_array_equal(getattr(first, name)[clear], getattr(again, name)[clear], err_msg=name)
        print(f"{bundle}, batches of {size}: {worst:.1e}")  # noqa: T201
        assert worst <= OUTPUT_CLOSE
