from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_gru.training.fleet import Fleet, FleetReadings


def joined(blocks: list[FleetReadings]) -> tuple[object, ...]:
    columns = ("position", "series", "timestamp", "value")
    return (
        *(np.concatenate([getattr(block, name) for block in blocks]).tolist() for name in columns[:3]),
        np.concatenate([block.value for block in blocks]).tobytes(),  # NaN equals itself here
        [label for block in blocks for label in block.labels],
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    series=st.integers(1, 8),
    portions=st.lists(st.integers(0, 60), min_size=1, max_size=12),
)
def test_portions_do_not_change_what_is_simulated(seed: int, series: int, portions: list[int]) -> None:
    def fleet() -> Fleet:
        return Fleet(series, 60_000, 0, seed, anomalies=1 / 40, gaps=1 / 40, nulls=0.05, quiet=4)

    whole, parts = fleet(), fleet()
    assert joined([whole.ticks(sum(portions))]) == joined([parts.ticks(n) for n in portions])
