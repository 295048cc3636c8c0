"""Series and networks that are compared in no time."""

from __future__ import annotations

import numpy as np

from stream_gru.models.bundle import Description
from stream_gru.models.network import Network
from stream_gru.training import data
from stream_gru.training.prepare import Prepared, prepare
from stream_gru.training.recipe import Recipe

HOUR_MS = 3_600_000

NETWORKS = {cell: Network(cells=(cell,), hidden=8) for cell in ("gru", "lstm", "rnn")}

SMALL = Recipe.model_validate(
    {
        "horizons": [3],
        "network": {"hidden": 8},
        "data": {"length": 64, "batch": 4},
        "plan": {"chunk": 32, "steps": 2, "warm_up": 1},
    }
)


def waves(readings: int = 700, series: int = 2) -> data.SeriesCollection:
    """Days of 24 readings, noisy."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(readings) / 24
    return data.SeriesCollection(
        [
            data.Series(np.arange(readings) * HOUR_MS, np.sin(angle + i) + 0.1 * rng.normal(size=readings), name=str(i))
            for i in range(series)
        ]
    )


def batch(history: data.SeriesCollection, description: Description, n: int = 4, length: int = 32) -> Prepared:
    windows = data.Recorded(history, SMALL.data).draw(n, length, np.random.default_rng(0))
    return prepare(windows, description)
