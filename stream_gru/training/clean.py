"""A made-up fleet in which all is well: cycles, noise of many kinds, slow wandering, coarse sensors, and no events.

What a detector says of it is a false alarm. Series differ in everything that is drawn; the same seed gives the same.
"""

from __future__ import annotations

import numpy as np

from stream_gru.columns import DAY_MS, WEEK_MS, Bools, Floats, Ints

_STEPS_MS = (10_000, 60_000, 60_000, 300_000, 300_000, 900_000, 3_600_000)  # between two readings
_START_MS = 1_700_000_000_000  # November 2023
_PERIODS_MS = (DAY_MS, DAY_MS / 2, DAY_MS / 3, WEEK_MS)
_HEAVY_TAILS = 4  # degrees of freedom of the t distribution of heavy-tailed noise


def fleet(series: int, length: int, seed: int) -> tuple[Ints, Floats]:
    """`series` series of `length` readings: epoch ms and values, (series, length) each."""
    rng = np.random.default_rng(seed)
    step = rng.choice(_STEPS_MS, (series, 1)).astype(np.int64)
    timestamp = _START_MS + rng.integers(0, WEEK_MS, (series, 1)) + step * np.arange(length)
    value = _cycles(timestamp, rng) + _noise(series, length, rng)
    skewed = np.exp(np.clip(value * rng.uniform(0.05, 0.4, (series, 1)), -8, 8))
    value = np.where(_some(series, 0.25, rng), skewed, value)
    grain = value.std(1, keepdims=True) * 10 ** rng.uniform(-2, -0.5, (series, 1))
    value = np.where(_some(series, 0.25, rng), np.round(value / grain) * grain, value)
    level = value.std(1, keepdims=True) * rng.choice([0, 3, 30, 300], (series, 1))
    scaled: Floats = (value + level) * 10 ** rng.uniform(-3, 4, (series, 1))
    return timestamp, scaled


def _cycles(timestamp: Ints, rng: np.random.Generator) -> Floats:
    """Daily and weekly ones in most series; sharp peaks in some."""
    n = len(timestamp)
    value = np.zeros(timestamp.shape)
    for period in _PERIODS_MS:
        angle = 2 * np.pi * (timestamp / period + rng.random((n, 1)))
        value += np.sin(angle) * rng.exponential(1.0, (n, 1)) * _some(n, 0.6, rng)
    return np.where(_some(n, 0.2, rng), np.exp(np.clip(value, -2, 2)), value)


def _noise(n: int, length: int, rng: np.random.Generator) -> Floats:
    """First-order autoregressions, some with heavy tails, and a slow one that always comes back."""
    shock = rng.standard_normal((n, length))
    heavy = rng.standard_t(_HEAVY_TAILS, (n, length)) / np.sqrt(_HEAVY_TAILS / (_HEAVY_TAILS - 2))
    shock = np.where(_some(n, 0.25, rng), heavy, shock)
    memory = rng.choice([0, 0.3, 0.6, 0.9], (n, 1))
    fast = _remember(shock, memory) * 10 ** rng.uniform(-1.3, 0.2, (n, 1))
    slow = _remember(rng.standard_normal((n, length)), rng.choice([0.99, 0.999], (n, 1)))
    wander: Floats = fast + slow * rng.uniform(0, 1, (n, 1)) * _some(n, 0.5, rng)
    return wander


def _remember(shock: Floats, memory: Floats) -> Floats:
    """``v[t] = memory v[t-1] + sqrt(1 - memory^2) shock[t]`` along the second axis: variance 1 throughout."""
    value = shock.copy()
    left = np.sqrt(1 - memory[:, 0] ** 2)
    for t in range(1, value.shape[1]):
        value[:, t] = memory[:, 0] * value[:, t - 1] + left * shock[:, t]
    return value


def _some(n: int, share: float, rng: np.random.Generator) -> Bools:
    """True for that share of n series, (n, 1)."""
    chosen: Bools = rng.random((n, 1)) < share
    return chosen
