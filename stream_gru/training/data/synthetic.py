"""Made-up series to learn forecasting from: wide enough that real ones look like some of them.

Every trait is drawn for each series on its own: cycles with and without a calendar, six kinds of noise, trends, shifts,
spikes, and the ways in which sensors report (counts, limits, steps, pauses). The same seed gives the same series.
"""

from __future__ import annotations

import numpy as np

from stream_gru.columns import DAY_MS, Bools, Floats, Ints

Rng = np.random.Generator

_PER_DAY = (12, 24, 24, 48, 96, 144, 288, 288, 720, 1440)  # readings a day
_STEPS_MS = (100, 1000, 1000, 5000, 10_000, 30_000, 60_000, 300_000)  # where the calendar does not show
_START_MS = (1_300_000_000_000, 1_900_000_000_000)  # drawn between: March 2011 and March 2030


def generate(n: int, length: int, rng: Rng) -> tuple[Ints, Floats]:
    """`n` series of `length` readings: epoch ms and values, (n, length) each. No value is missing: time shows gaps."""
    span = length + length // 8  # the surplus is what gaps swallow
    calendar = rng.random(n) < 0.75
    per_day = rng.choice(_PER_DAY, n)
    start = rng.integers(*_START_MS, n)
    position = np.arange(span)
    day = position / per_day[:, None] + (start / DAY_MS)[:, None]  # in days, also where the clock does not show it
    value = _cycles(day, rng) + _noise(n, span, rng) + _events(n, span, rng)
    mixed = rng.random(n) < 0.15
    value = np.where(mixed[:, None], value + rng.uniform(0.2, 1, (n, 1)) * value[rng.permutation(n)], value)
    value = _reported(_shaped(value, rng), rng)
    step = np.where(calendar, DAY_MS / per_day, rng.choice(_STEPS_MS, n))
    timestamp = start[:, None] + np.round(position * step[:, None]).astype(np.int64)
    kept = _without_gaps(n, span, length, rng)
    scale = 10.0 ** rng.uniform(-3, 5, (n, 1))
    return np.take_along_axis(timestamp, kept, 1), np.take_along_axis(value * scale, kept, 1)


def _some(n: int, share: float, rng: Rng) -> Floats:
    """1 for that share of n series, else 0, (n, 1)."""
    chosen: Floats = (rng.random((n, 1)) < share).astype(np.float64)
    return chosen


def _wave(phase: Floats, rng: Rng) -> Floats:
    """A periodic function of `phase` (n, L) in periods, about 1 in size: harmonics, a plateau, a saw or a peak."""
    n = len(phase)
    kind = rng.integers(0, 4, (n, 1))
    offset = rng.random((n, 1))
    angle = 2 * np.pi * (phase + offset)
    sine = np.sin(angle)
    weights = rng.normal(0, 1, (2, n, 1)) * (rng.random((2, n, 1)) < 0.5) * 0.5
    harmonics = sine + weights[0] * np.sin(2 * angle + 1) + weights[1] * np.sin(3 * angle + 2)
    plateau = np.tanh((sine + rng.uniform(-0.8, 0.8, (n, 1))) * rng.uniform(2, 12, (n, 1)))
    saw = 2 * ((phase + offset) % 1) - 1
    peak = 2 * np.exp((sine - 1) * rng.uniform(3, 20, (n, 1)))
    chosen: Floats = np.select([kind == 0, kind == 1, kind == 2], [harmonics, plateau, saw], peak)
    return chosen


def _cycles(day: Floats, rng: Rng) -> Floats:
    n, length = day.shape
    daily = _wave(day, rng) * _some(n, 0.65, rng) * rng.uniform(0.5, 5, (n, 1))
    weekend = (np.floor(day) + rng.integers(0, 7, (n, 1))) % 7 < 2
    daily *= 1 - weekend * _some(n, 0.3, rng) * rng.uniform(0.2, 1, (n, 1))
    weekly = _wave(day / 7, rng) * _some(n, 0.2, rng) * rng.uniform(0.3, 3, (n, 1))
    period = 2 ** rng.uniform(1.5, 7, (n, 1))
    other = _wave(np.arange(length) / period, rng) * _some(n, 0.25, rng) * rng.uniform(0.3, 4, (n, 1))
    return daily + weekly + other


def _noise(n: int, length: int, rng: Rng) -> Floats:
    """Autoregressions of order two and less, walks and their mixtures, with heavy tails and changing size for some."""
    shock = rng.normal(size=(n, length))
    heavy = rng.random(n) < 0.3
    shock[heavy] = np.clip(rng.standard_t(3, (int(heavy.sum()), length)), -30, 30)
    size = np.zeros((n, length))
    changing = rng.random((n, 1)) < 0.2
    size += np.where(changing, _filter(rng.normal(size=(n, length)), 0.98, 0.0) * 0.15, 0)
    shock *= np.exp(np.clip(size, -2, 2))
    kind = rng.integers(0, 6, n)  # white, AR1, AR2, walk, walk + white, integrated AR1
    damping = rng.uniform(0.7, 0.98, n)
    one = np.select(
        [kind == 1, kind == 2], [rng.uniform(-0.3, 0.97, n), 2 * damping * np.cos(rng.uniform(0.1, 2, n))], 0
    )
    two = np.where(kind == 2, -(damping**2), 0)
    walk = kind >= 3
    one = np.where(walk, rng.uniform(0.98, 1, n), one)
    value = _filter(shock, one, two)
    smooth = kind == 5
    value[smooth] = _filter(_filter(shock[smooth], rng.uniform(0.3, 0.9), 0), 0.999, 0.0)
    value /= np.maximum(np.abs(np.diff(value, axis=1)).mean(1, keepdims=True), 1e-9)
    value += np.where(kind[:, None] == 4, rng.normal(size=(n, length)) * rng.uniform(0.5, 3, (n, 1)), 0)
    level = np.where(rng.random((n, 1)) < 0.12, 0, 10 ** rng.uniform(-1.3, 0.3, (n, 1)))  # some have no noise at all
    noise: Floats = value * level
    return noise


def _filter(shock: Floats, one: float | Floats, two: float | Floats) -> Floats:
    """``v[t] = one v[t-1] + two v[t-2] + shock[t]`` along the second axis."""
    value = shock.copy()
    if value.shape[1] > 1:
        value[:, 1] += one * value[:, 0]
    for t in range(2, value.shape[1]):
        value[:, t] += one * value[:, t - 1] + two * value[:, t - 2]
    return value


def _events(n: int, length: int, rng: Rng) -> Floats:
    """Trends that may turn, level shifts that may be undone, and spikes."""
    time = np.arange(length) / length
    turn = rng.random((n, 1))
    trend = time * rng.normal(0, 4, (n, 1)) + np.maximum(time - turn, 0) * rng.normal(0, 6, (n, 1))
    value = trend * _some(n, 0.3, rng)
    for share in (0.22, 0.1):
        begin = rng.random((n, 1))
        undone = begin + rng.exponential(0.1, (n, 1)) * np.where(rng.random((n, 1)) < 0.5, 1, 100)
        value += ((time >= begin) & (time < undone)) * rng.normal(0, 4, (n, 1)) * _some(n, share, rng)
    rate = rng.choice([0.002, 0.005, 0.02], (n, 1))
    spikes = (rng.random((n, length)) < rate) * rng.normal(0, 6, (n, length)) * _some(n, 0.22, rng)
    longer = rng.random((n, 1)) < 0.4  # some last a few readings
    return value + np.where(longer, _filter(spikes, 0.6, 0.0), spikes)


def _shaped(value: Floats, rng: Rng) -> Floats:
    """Levels far from zero, and distributions that are not symmetric: log-normal, bounded, counts, bursts,
    and meters that only rise."""
    n = len(value)
    spread = np.maximum(value.std(1, keepdims=True), 1e-9)
    standard = (value - value.mean(1, keepdims=True)) / spread
    kind = rng.choice(6, (n, 1), p=[0.53, 0.16, 0.08, 0.14, 0.04, 0.05])
    grown = np.exp(np.clip(standard * rng.uniform(0.2, 1.0, (n, 1)), -8, 8))
    bounded = 1 / (1 + np.exp(-np.clip(standard * rng.uniform(1, 4, (n, 1)), -30, 30)))
    counts = rng.poisson(np.minimum(grown * 10 ** rng.uniform(-0.7, 2.5, (n, 1)), 1e6)).astype(np.float64)
    bursts = grown * (rng.random(value.shape) < 0.1)
    meters = np.cumsum(grown ** rng.choice([0, 0.3, 1], (n, 1)), 1)
    far = value + rng.choice([0, 0, 1, 10, 1000], (n, 1)) * spread * rng.choice([-1, 1], (n, 1))
    chosen: Floats = np.select([kind == k for k in range(1, 6)], [grown, bounded, counts, bursts, meters], far)
    return chosen


def _reported(value: Floats, rng: Rng) -> Floats:
    """As a sensor reports it: clipped, in steps, held for a while, stuck."""
    n, length = value.shape
    low, high = np.quantile(value, [0.15, 0.9], axis=1)[..., None]
    value = np.where(rng.random((n, 1)) < 0.05, np.maximum(value, low), value)
    value = np.where(rng.random((n, 1)) < 0.03, np.minimum(value, high), value)
    grain = np.maximum(value.std(1, keepdims=True), 1e-9) * 10 ** rng.uniform(-2.5, 0, (n, 1))
    value = np.where(rng.random((n, 1)) < 0.25, np.round(value / grain) * grain, value)
    hold = rng.integers(2, 12, (n, 1)) * (rng.random((n, 1)) < 0.08)
    source = np.broadcast_to(np.arange(length), value.shape).copy()
    source -= np.where(hold > 0, source % np.maximum(hold, 1), 0)
    begin = rng.integers(0, length, (n, 1))
    stuck = (source >= begin) & (source < begin + rng.integers(10, 200, (n, 1))) & (rng.random((n, 1)) < 0.06)
    return np.take_along_axis(value, np.where(stuck, begin, source), 1)


def _without_gaps(n: int, span: int, length: int, rng: Rng) -> Ints:
    """Which `length` of `span` readings arrive, (n, length): all at first, but for some series with gaps."""
    dropped: Bools = rng.random((n, span)) < rng.choice([0.005, 0.02, 0.1], (n, 1))
    runs = rng.random((n, span)) < 0.001
    for shift in range(1, 6):
        dropped[:, shift:] |= runs[:, :-shift]
    dropped &= rng.random((n, 1)) < 0.18
    kept: Ints = np.argsort(dropped, axis=1, kind="stable")[:, :length]
    return np.sort(kept, axis=1)
