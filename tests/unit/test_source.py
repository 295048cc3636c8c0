"""How many readings the source asks for."""

from __future__ import annotations

import pytest

from stream_gru.worker.source import fitting


@pytest.mark.parametrize(
    ("most", "took", "expected"),
    [(512, 0.01, 1024), (8192, 0.05, 8192), (8192, 2.0, 819), (3, 60.0, 1), (100, 0.2, 100), (512, 0.0, 1024)],
)
def test_the_batch_fits_the_time(most: int, took: float, expected: int) -> None:
    assert fitting(most, took, 8192) == expected
