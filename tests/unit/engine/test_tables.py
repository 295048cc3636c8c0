"""Data frames in and out: columns are found by name, and a frame of pandas keeps its index."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest

from stream_gru.engine import tables


@pytest.mark.parametrize("library", [pl.DataFrame, pd.DataFrame])
def test_values_are_in_the_order_of_the_names_that_are_asked_for(library: Any) -> None:
    columns = {"a": [1, 2], "series": ["x", "y"], "b": [3.5, None], "c": [None, None], "timestamp": [0, 1]}
    table = tables.read(nw.from_native(library(columns), eager_only=True), ["c", "a", "b"], ["b", "a"])
    np.testing.assert_array_equal(table.value, [[np.nan, 1, 3.5], [np.nan, 2, np.nan]])
    np.testing.assert_array_equal(table.covariates, [[3.5, 1], [np.nan, 2]])
    assert table.series == ["x", "y"]


def test_a_frame_of_pandas_keeps_its_index() -> None:
    given = pd.DataFrame({"value": [1.0, 2.0]}, index=pd.Index(["first", "second"], name="row"))
    made = tables.like(nw.from_native(given, eager_only=True), pl.DataFrame({"y": [1.0, None], "n": ["a", "b"]}))
    assert made.index.equals(given.index)
    assert made["n"].to_list() == ["a", "b"]
    assert made["y"].isna().to_list() == [False, True]
