"""A made-up fleet of sensors, as arrays: trends, daily and weekly cycles, noise, slow drifts, gaps, and anomalies with
labels. The same seed gives the same readings, in whatever portions they are asked for. No I/O, no clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from stream_gru.columns import DAY_MS, WEEK_MS, Bools, Floats, Ints

DECIMALS = 3  # of a value, as a sensor would send it
ANOMALIES = ("spike", "level_shift", "drift", "flat_line", "noise_burst")

# What a sensor measures: name, then ranges for its level, the swing of its daily cycle, and its noise.
_KINDS = (
    ("temperature", (15.0, 30.0), (2.0, 8.0), (0.10, 0.40)),
    ("pressure", (990.0, 1020.0), (1.0, 4.0), (0.10, 0.50)),
    ("flow", (20.0, 120.0), (5.0, 30.0), (0.50, 2.00)),
    ("vibration", (2.0, 6.0), (0.3, 1.0), (0.05, 0.20)),
    ("power", (100.0, 900.0), (20.0, 200.0), (2.00, 12.00)),
)
# How long an anomaly lasts in readings, and how far it goes, in units of the series' own scale.
_LENGTHS = {
    "spike": (1, 3),
    "level_shift": (20, 60),
    "drift": (30, 80),
    "flat_line": (60, 120),
    "noise_burst": (15, 40),
}
_SIZES = {"spike": (12, 25), "level_shift": (12, 25), "drift": (20, 40), "flat_line": (0, 0), "noise_burst": (8, 12)}
_GAP_LENGTHS = (3, 30)  # readings, the first and the last that are drawn
_NOISE_MEMORY = 0.6  # of the noise, from one reading to the next
_DRIFT_MEMORY = 0.999  # of the slow wander
_DRIFT_SIZE = 2.0  # of the slow wander, against the noise


@dataclass(frozen=True, slots=True)
class Label:
    """An injected anomaly: the first and the last reading that it touches, epoch ms."""

    series: str
    kind: str
    start: int
    end: int


@dataclass(slots=True)
class FleetReadings:
    """N readings in the order of time."""

    position: Ints  # (N,) counts every reading that was due, also those that a gap swallowed
    series: Ints  # (N,) index into the fleet's names
    timestamp: Ints  # (N,) epoch ms
    value: Floats  # (N,) NaN = the sensor answered, but without a value
    labels: list[Label] = field(default_factory=list)  # of the anomalies that begin here

    def __len__(self) -> int:
        return len(self.position)


class Fleet:
    """S sensors that take turns: reading i is that of sensor ``i % S``, taken at ``start_ms + i * step_ms / S``.

    `step_ms` is the time between two readings of one sensor. An anomaly or a gap begins at a reading with the given
    probability, though not in the first `quiet` readings of a sensor nor that soon after its last one.
    """

    def __init__(
        self,
        series: int,
        step_ms: float,
        start_ms: int,
        seed: int = 0,
        *,
        anomalies: float = 0.0,
        gaps: float = 0.0,
        nulls: float = 0.0,
        quiet: int = 128,
    ) -> None:
        traits, noise, drift, null, anomaly, gap = (np.random.default_rng(s) for s in _seeds(seed, 6))
        self.names = [_name(i) for i in range(series)]
        self.series, self.step_ms, self.start_ms = series, step_ms, start_ms
        self._noise, self._drift, self._null, self._anomaly = noise, drift, null, anomaly
        self._nulls = nulls
        self._traits = _traits(traits, series, step_ms)
        self._anomalies = _Schedule(anomaly, series, anomalies, quiet)
        self._gaps = _Schedule(gap, series, gaps, quiet)
        self._gap_lengths = gap
        self._active: list[_Active] = []
        self._silent: list[tuple[int, int, int]] = []  # series, first tick, tick after the last
        self._near = np.zeros(series)  # state of the noise
        self._far = np.zeros(series)  # state of the slow wander
        self._last = np.zeros(series)  # the tick before this block, for sensors that get stuck
        self._tick = 0

    def ticks(self, n: int) -> FleetReadings:
        """The next `n` readings of every sensor, without those that gaps swallow."""
        first, self._tick = self._tick, self._tick + n
        position = np.arange(first * self.series, self._tick * self.series).reshape(n, self.series)
        timestamp = self._time(position)
        labels = self._begin(first)
        value, anomalous = self._values(timestamp, first)
        value[self._null.random(value.shape) < self._nulls] = np.nan
        there = ~self._swallowed(first, n) | anomalous  # what has a label is never swallowed
        return FleetReadings(
            position[there],
            np.broadcast_to(np.arange(self.series), there.shape)[there],
            timestamp[there],
            np.round(value[there], DECIMALS),
            labels,
        )

    def _time(self, position: Ints) -> Ints:
        return self.start_ms + (position * (self.step_ms / self.series)).astype(np.int64)

    def _begin(self, first: int) -> list[Label]:
        """Start the anomalies that are due before the end of this block."""
        self._active = [a for a in self._active if a.stop > first]
        labels = []
        for tick, s in self._anomalies.due(self._tick):
            kind = ANOMALIES[self._anomaly.integers(len(ANOMALIES))]
            length = int(self._anomaly.integers(*_LENGTHS[kind], endpoint=True))
            size = self._anomaly.uniform(*_SIZES[kind]) * self._anomaly.choice((-1.0, 1.0))
            self._anomalies.resume(s, tick + length)
            self._active.append(_Active(kind, s, tick, tick + length, size))
            ends = np.array([tick, tick + length - 1]) * self.series + s
            start, end = self._time(ends).tolist()
            labels.append(Label(self.names[s], kind, start, end))
        return labels

    def _values(self, timestamp: Ints, first: int) -> tuple[Floats, Bools]:
        """(ticks, S) values and which of them belong to an anomaly."""
        traits = self._traits
        noise = self._remember(self._noise, self._near, _NOISE_MEMORY, len(timestamp)) * traits.noise
        value = traits.expected(timestamp - self.start_ms)
        value += self._remember(self._drift, self._far, _DRIFT_MEMORY, len(timestamp)) * (_DRIFT_SIZE * traits.noise)
        anomalous = np.zeros(value.shape, dtype=bool)
        for a in self._active:
            a.apply(value[:, a.series], noise[:, a.series], anomalous[:, a.series], first, traits.scale[a.series])
        value += noise
        for a in self._active:
            if a.kind == "flat_line":
                before = a.start - first - 1
                if before >= 0:
                    a.held = value[before, a.series]
                elif before == -1:
                    a.held = self._last[a.series]
                value[a.rows(first), a.series] = a.held
        if len(value):
            self._last = value[-1].copy()
        return value, anomalous

    def _remember(self, rng: np.random.Generator, state: Floats, memory: float, n: int) -> Floats:
        """(n, S) of a first-order autoregression with variance 1; `state` is carried on."""
        out: Floats = rng.standard_normal((n, self.series)) * np.sqrt(1 - memory**2)
        for row in out:
            state *= memory
            state += row
            row[:] = state
        return out

    def _swallowed(self, first: int, n: int) -> Bools:
        mask = np.zeros((n, self.series), dtype=bool)
        for tick, s in self._gaps.due(self._tick):
            stop = tick + int(self._gap_lengths.integers(*_GAP_LENGTHS, endpoint=True))
            self._gaps.resume(s, stop)
            self._silent.append((s, tick, stop))
        for s, start, stop in self._silent:
            mask[max(start - first, 0) : stop - first, s] = True
        self._silent = [gap for gap in self._silent if gap[2] > self._tick]
        return mask


@dataclass(slots=True)
class _Active:
    """An anomaly that has begun."""

    kind: str
    series: int
    start: int  # tick
    stop: int  # tick after its last
    size: float
    held: float = 0.0

    def rows(self, first: int) -> slice:
        """Where it lies in a block that begins at tick `first`."""
        return slice(max(self.start - first, 0), self.stop - first)

    def apply(self, value: Floats, noise: Floats, anomalous: Bools, first: int, scale: float) -> None:
        """Change one sensor's column of a block in place."""
        rows = self.rows(first)
        anomalous[rows] = True
        if self.kind in ("spike", "level_shift"):
            value[rows] += self.size * scale
        elif self.kind == "drift":
            age = np.arange(len(value))[rows] + first - self.start + 1
            value[rows] += self.size * scale * age / (self.stop - self.start)
        elif self.kind == "noise_burst":
            noise[rows] *= abs(self.size)


class _Schedule:
    """When something next begins, for each of S series: a Poisson process with a quiet time after each event.

    Events come in the order of time, so what is drawn for them does not depend on how the time was cut into blocks.
    """

    def __init__(self, rng: np.random.Generator, series: int, probability: float, quiet: int) -> None:
        self._rng, self._quiet = rng, quiet
        self._mean = 1 / probability if probability > 0 else None
        self._next: list[tuple[int, int]] = []
        if self._mean is not None:
            self._next = [(quiet + int(wait), s) for s, wait in enumerate(rng.exponential(self._mean, series))]
            heapq.heapify(self._next)

    def due(self, before: int) -> Iterator[tuple[int, int]]:
        """(tick, series) of what begins before tick `before`; each must be resumed to happen again."""
        while self._next and self._next[0][0] < before:
            yield heapq.heappop(self._next)

    def resume(self, series: int, tick: int) -> None:
        """The event has ended at `tick`: draw the next one."""
        assert self._mean is not None  # noqa: S101 - only what was due is resumed
        heapq.heappush(self._next, (tick + self._quiet + int(self._rng.exponential(self._mean)), series))


@dataclass(slots=True)
class _Traits:
    """What a sensor is like when all is well, (S,) each; cycles as (harmonics, S) weights of sine and cosine."""

    level: Floats
    slope: Floats  # per ms
    cycles: Floats
    noise: Floats
    scale: Floats  # how far a reading usually lies from the one before

    def expected(self, age_ms: Ints) -> Floats:
        """(ticks, S) without noise. The angle is that of the tick's first sensor; phases differ anyway.

        Time counts from the start of the fleet, so that a seed gives the same values whenever it is run.
        """
        angles = 2 * np.pi * age_ms[:, :1] / np.array([DAY_MS, DAY_MS / 2, WEEK_MS])
        value: Floats = np.hstack([np.sin(angles), np.cos(angles)]) @ self.cycles
        value += self.level + self.slope * age_ms
        return value


def _traits(rng: np.random.Generator, series: int, step_ms: float) -> _Traits:
    kind = np.arange(series) % len(_KINDS)
    ranges = np.array([[level, swing, noise] for _, level, swing, noise in _KINDS])[kind]  # (S, 3, 2)
    level, swing, noise = (rng.uniform(ranges[:, i, 0], ranges[:, i, 1]) for i in range(3))
    weights = np.stack([np.ones(series), rng.uniform(0.0, 0.4, series), rng.uniform(0.1, 0.5, series)])
    phases = rng.uniform(0, 2 * np.pi, (3, series))
    amplitude = weights * swing
    return _Traits(
        level=level,
        slope=rng.normal(0.0, 2.0, series) * noise / DAY_MS,
        cycles=np.vstack([amplitude * np.cos(phases), amplitude * np.sin(phases)]),
        noise=noise,
        scale=np.hypot(noise, swing * np.minimum(2 * np.pi * step_ms / DAY_MS, 1.0)),
    )


def _name(i: int) -> str:
    unit, kind = divmod(i, len(_KINDS))
    return f"plant-{unit % 4 + 1}/unit-{unit + 1:04d}/{_KINDS[kind][0]}"


def _seeds(seed: int, n: int) -> list[np.random.SeedSequence]:
    return np.random.SeedSequence(seed).spawn(n)
