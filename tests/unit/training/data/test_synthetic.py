from __future__ import annotations

import numpy as np

from stream_gru.training.data import synthetic


def test_made_up_series_are_whole_and_repeatable() -> None:
    time, value = synthetic.generate(200, 150, np.random.default_rng(3))
    assert time.shape == value.shape == (200, 150)
    assert np.isfinite(value).all()
    assert np.abs(value).max() < 1e15
    assert (np.diff(time, axis=1) > 0).all()
    assert (np.ptp(value, axis=1) > 0).mean() > 0.95
    again = synthetic.generate(200, 150, np.random.default_rng(3))
    assert np.array_equal(value, again[1])
    assert not np.array_equal(value, synthetic.generate(200, 150, np.random.default_rng(4))[1])
