"""Forecasts as a table."""

from __future__ import annotations

import numpy as np

from stream_gru.engine.frame import outlook
from stream_gru.engine.row import NEVER


def test_times_ahead_are_the_last_plus_usual_intervals_to_the_nearest_millisecond() -> None:
    heads = np.array([(1000, 10.6), (1000, 0.0), (NEVER, 0.0)], [("timestamp", "<i8"), ("interval", "<f8")])
    ahead = np.arange(2.0 * 3 * 3).reshape(2, 3, 3, 1)
    table = outlook(["a", "b", "c"], heads, [1, 4], ahead, ["value"])
    assert table["timestamp"].to_list() == [1011, 1042, None, None, None, None]
    assert table["series"].to_list() == ["a", "a", "b", "b", "c", "c"]
    assert table["step"].to_list() == [1, 4] * 3
    assert table["yhat_upper"].to_list() == [6, 15, 7, 16, 8, 17]
