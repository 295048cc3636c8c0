from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream_gru.engine.row import ALARM, NEVER, NONE, PAST, Layout, as_bytes

FIELDS = {"levels": 4, "hidden": 7}


@pytest.mark.parametrize("features", [1, 2, 3, 38])
def test_a_row_is_a_whole_number_of_words_and_says_what_is_in_it(features: int) -> None:
    layout = Layout(features, FIELDS)
    assert layout.row_bytes % 8 == 0
    assert layout.width == 12
    assert layout.row_bytes == 32 + ALARM.itemsize + PAST * 8 + features * (40 + PAST * 16 + 4 * 12)
    row = layout.fresh(hidden=np.arange(7))[0]
    assert row["offset"] == NONE
    assert row["timestamp"] == NEVER
    assert np.isnan(row["last"]).all()
    assert (row["seen"] == 0).all()
    assert (row["body"]["hidden"] == np.arange(7)).all()
    assert (row["body"]["levels"] == 0).all()


def test_the_version_names_the_layout() -> None:
    versions = {
        Layout(1, FIELDS).version,
        Layout(2, FIELDS).version,
        Layout(1, {"levels": 7, "hidden": 4}).version,
        Layout(1, {"hidden": 7, "levels": 4}).version,
        Layout(1, {"levels": 4, "memory": 7}).version,
    }
    assert len(versions) == 5
    assert Layout(1, dict(FIELDS)).version == Layout(1, FIELDS).version


@given(data=st.data(), features=st.integers(1, 3))
def test_bytes_round_trip(data: st.DataObject, features: int) -> None:
    layout = Layout(features, FIELDS)
    rows = data.draw(hnp.arrays(np.uint8, (3, layout.row_bytes)))
    parts = as_bytes(rows)
    assert [len(part) for part in parts] == [layout.row_bytes] * 3
    assert b"".join(parts) == rows.tobytes()
    assert layout.parse(parts).tobytes() == layout.parse(rows).tobytes() == rows.tobytes()
    assert as_bytes(rows[:0]) == []
