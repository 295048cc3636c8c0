"""A series to score."""

from __future__ import annotations

import numpy as np
import polars as pl

MINUTE = 60_000
START = 1_763_800_000_000


def wave(n: int = 200) -> pl.DataFrame:
    """One series, a reading an hour, that repeats each day."""
    hours = np.arange(n)
    value = 20 + 5 * np.sin(hours * 2 * np.pi / 24) + np.random.default_rng(0).normal(0, 0.1, n)
    return pl.DataFrame({"series": ["pump-3"] * n, "timestamp": START + 3_600_000 * hours, "value": value})
