"""`stream-gru bench gates`: do gates move where something happens, and what does it cost to count them?

Measured on the labelled windows of NAB (Lavin and Ahmad 2015) and, to know that the measurement can find something, on
made-up series whose regime changes at a known time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stream_gru.bench.deviation import Case, Event, baseline, compare, unusual
from stream_gru.columns import Bools, Floats, Forecasts, Readings
from stream_gru.engine import gates
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import DataError
from stream_gru.history import backtest
from stream_gru.history.files import History
from stream_gru.history.gates import trace

SCORE, MOVE = "anomaly score", "|dx|"  # the yardsticks

_PROBATION, _MOST_PROBATION = 0.15, 750  # NAB's: so much of a file does not count
_SERIES, _READINGS, _WINDOW = 150, 1400, 50  # of each kind of change
_START, _EARLIEST, _LATEST = 500, 800, 1300  # what does not count, and a change; gates still settle in young series
_FLOOR = 1e-3  # of a gate's deviation: less is nothing
_BATCH, _ROUNDS = 8192, 30  # of the cost

Say = Callable[[str], None]


def run(data: Path, bundle: Path | None, say: Say, seed: int = 0) -> dict[str, Any]:
    """All of it; the object that ``--json`` prints. Raises `DataError` where there is no NAB, and `BundleError`."""
    files, windows = _nab(data)
    say(f"{sum(map(len, files.values())):,} readings of {len(files)} files")
    cases, moves = _cases(bundle, files, windows)
    labelled = compare(cases, SCORE, seed)
    changes = {}
    for kind in KINDS:
        say(f"made-up series: {kind}")
        changes[kind] = compare(_changes(bundle, kind, seed), SCORE, seed)
    say("what it costs")
    return {"labelled": labelled, "moves": moves, "changes": changes, "cost": cost(bundle)}


def _nab(data: Path) -> tuple[dict[str, History], dict[str, list[tuple[int, int, int]]]]:
    """The labelled files by name, and each one's windows as epoch ms: begin, end (included), the label itself."""
    folder = data / "NAB" if (data / "NAB").is_dir() else data
    try:
        spans, labels = (
            json.loads((folder / "labels" / f"combined_{what}.json").read_text("utf-8"))
            for what in ("windows", "labels")
        )
    except OSError as error:
        raise DataError(f"{folder} does not hold NAB: {error.strerror} ({error.filename})") from None
    files, windows = {}, {}
    for name, found in spans.items():
        if found and (folder / "data" / name).is_file():
            (files[name],) = backtest.read([folder / "data" / name], "timestamp", ["value"], None)
            times = [_ms(text) for text in labels[name]]
            begins = [(_ms(begin), _ms(end)) for begin, end in found]
            windows[name] = [(a, b, next((t for t in times if a <= t <= b), a)) for a, b in begins]
    if not files:
        raise DataError(f"{folder / 'data'} holds none of the labelled files of NAB")
    return files, windows


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def _cases(
    bundle: Path | None, files: Mapping[str, History], windows: Mapping[str, list[tuple[int, int, int]]]
) -> tuple[list[Case], dict[str, dict[str, float]]]:
    """The signals of each file, and how far the gates' means move inside the labelled windows and outside."""
    cases: list[Case] = []
    inside: dict[str, list[Floats]] = {}
    outside: dict[str, list[Floats]] = {}
    for name, stepped, signals, units in _signals(bundle, files):
        times = files[name].timestamp[stepped]
        start = round(min(_PROBATION * len(times), _MOST_PROBATION))
        events = [Event(*np.searchsorted(times, (a, b + 1, at)).tolist()) for a, b, at in windows[name]]
        cases.append(Case(name, signals, events, start))
        within = np.zeros(len(times), np.bool_)
        for event in events:
            within[event.first : event.last] = True
        for gate, values in units.items():
            moved = np.abs(values.mean(1) - baseline(values.mean(1))[0])
            inside.setdefault(gate, []).append(moved[within])
            outside.setdefault(gate, []).append(moved[start:][~within[start:]])
    return cases, {
        gate: {
            "inside": round(float(np.concatenate(inside[gate]).mean()), 4),
            "outside": round(float(np.concatenate(outside[gate]).mean()), 4),
        }
        for gate in inside
    }


def _signals(
    bundle: Path | None, series: Mapping[str, History]
) -> Iterator[tuple[str, Bools, dict[str, Floats], dict[str, Floats]]]:
    """Of each series: which readings were stepped, and of those T the signals (T,) and the gates (T, units)."""
    torch.set_num_threads(1)  # as a worker has it
    engine = Stepper(bundle, capacity=len(series), device="cpu")
    readings = backtest.admit(engine, list(series.values()))
    forecasts, found = trace(engine, readings, lambda gate: gate)
    first = 0
    for name, history in series.items():
        part = slice(first, first + len(history))
        first += len(history)
        here = {gate: values[part, 0] for gate, values in found.items()}
        stepped = np.isfinite(next(iter(here.values()))[:, 0])
        units = {gate: values[stepped].astype(np.float64) for gate, values in here.items()}
        signals = dict(_deviations(units))
        signals |= _yardsticks(forecasts.take(part).take(stepped))
        yield name, stepped, signals, units


def _deviations(units: Mapping[str, Floats]) -> Iterator[tuple[str, Floats]]:
    """How far from its running baseline the mean of each gate is, and the pattern of its units."""
    for gate, values in units.items():
        yield f"{gate}, mean", np.abs(unusual(values.mean(1), _FLOOR))
        apart = np.sqrt(np.square(values - baseline(values)[0]).mean(1))
        yield f"{gate}, units", unusual(np.nan_to_num(apart), _FLOOR)


def _yardsticks(forecasts: Forecasts) -> dict[str, Floats]:
    y = forecasts.y[:, 0]
    moved = np.abs(np.diff(y, prepend=y[0]))
    return {
        MOVE: unusual(moved, 1e-6 * float(np.abs(y).max()) + 1e-12),
        SCORE: np.nan_to_num(forecasts.anomaly_score),
    }


def _nothing(noise: Floats, rng: np.random.Generator) -> Floats:
    return noise


def _level(noise: Floats, rng: np.random.Generator) -> Floats:
    return noise + 4 * _sign(rng)


def _variance(noise: Floats, rng: np.random.Generator) -> Floats:
    return noise * 3


def _trend(noise: Floats, rng: np.random.Generator) -> Floats:
    return noise + 0.2 * _sign(rng) * np.arange(1, len(noise) + 1)


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _correlation(noise: Floats, rng: np.random.Generator) -> Floats:
    """The same deviation, but each value swings back over the last one."""
    return _noise(len(noise), -0.7, rng)


KINDS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "nothing": _nothing,
    "level +- 4 deviations": _level,
    "deviation x 3": _variance,
    "trend of 0.2 deviations a reading": _trend,
    "autocorrelation 0.5 to -0.7": _correlation,
}
"""Regime changes: what becomes of the noise from then on."""


def _noise(n: int, autocorrelation: float, rng: np.random.Generator) -> Floats:
    """Autoregressive, with deviation 1."""
    shocks = rng.normal(0, np.sqrt(1 - autocorrelation**2), n)
    values = np.empty(n)
    last = rng.normal()
    for i in range(n):
        last = values[i] = autocorrelation * last + shocks[i]
    return values


def _changes(bundle: Path | None, kind: str, seed: int) -> list[Case]:
    """Noise whose regime changes once, on a daily cycle in every second series."""
    rng = np.random.default_rng(seed)
    times = np.arange(_READINGS) * 300_000 + 1_700_000_000_000
    cycle = 3 * np.sin(2 * np.pi * np.arange(_READINGS) / 288)
    series, at = {}, {}
    for i in range(_SERIES):
        name, change = f"{kind} {i}", int(rng.integers(_EARLIEST, _LATEST))
        noise = _noise(_READINGS, 0.5, rng)
        noise[change:] = KINDS[kind](noise[change:], rng)
        value = 100 + noise + cycle * (i % 2)
        series[name], at[name] = History([name] * _READINGS, times, value[:, None]), change
    return [
        # What follows a change is no regime to compare it with.
        Case(
            name,
            {n: s[: at[name] + _WINDOW] for n, s in signals.items()},
            [Event(at[name], at[name] + _WINDOW, at[name])],
            _START,
        )
        for name, _, signals, _ in _signals(bundle, series)
    ]


def cost(bundle: Path | None) -> dict[str, Any]:
    """Readings a second of `Stepper.step`, one thread, with and without the histograms of `metrics.gates`, by the size
    of the batch; the best of some rounds."""
    torch.set_num_threads(1)  # as a worker has it
    engine = Stepper(bundle, capacity=2 * _BATCH, device="cpu")
    engine.arena.open(1)
    slots = engine.arena.insert(1, [b"sensor-%06d" % i for i in range(_BATCH)])
    watches = {"without": None, "with": gates.Histograms(engine.bundle.forecaster.network, engine.device)}
    rng, tick, found = np.random.default_rng(0), 0, {}
    for size in (_BATCH, 512, 16):
        spent: dict[str, list[float]] = {name: [] for name in watches}
        for _ in range(_ROUNDS):
            for name, engine.watch in watches.items():  # in turns, so that both see the same machine
                tick += 1
                offset = np.full(size, tick)
                readings = Readings(slots[:size], offset, offset * 60_000, rng.normal(size=(size, 1)))
                began = time.perf_counter()
                engine.step(readings)
                spent[name].append(time.perf_counter() - began)
        found[str(size)] = {name: round(size / min(times)) for name, times in spent.items()}
    return found
