"""Values at the edge of what numbers are."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from stream_gru.codecs import load
from stream_gru.columns import Forecasts, Readings
from stream_gru.engine.stepper import Stepper
from stream_gru.records.dead_letters import Reason
from stream_gru.settings import Detector, Input
from tests.support.check import OUTPUT_CLOSE

NOW = 1_700_000_000_000
SERIES = 100
EXTREMES = ["NaN", "Infinity", "-Infinity", "1e38", "-1e38", "1e308", "1e999"]


def step(engine: Stepper, values: dict[int, float], tick: int) -> Forecasts:
    slots = engine.arena.admit(0, [b"%d" % s for s in values])
    n = len(values)
    offsets = np.array([tick * SERIES + s for s in values])
    column = np.array(list(values.values()))[:, None]
    return engine.step(Readings(slots, offsets, np.full(n, NOW + tick * 1000), column))


def fresh(bundle: str) -> Stepper:
    engine = Stepper(Path(bundle), capacity=SERIES, detector=Detector(min_n_samples_seen=20))
    engine.arena.open(0)
    return engine


def normal(series: int, tick: int) -> float:
    return float(20 + 5 * np.sin(tick / 7 + series))


@pytest.mark.parametrize("bundle", ["light", "zero-shot"])
def test_row_23_extreme_values_leave_every_state_finite_and_neighbours_untouched(bundle: str) -> None:
    """Of 100 series every third one is fed the extremes, through the codec first, then the largest that it lets by."""
    codec, engine, alone = load(Input(), ()), fresh(bundle), fresh(bundle)
    for tick in range(60):
        values = {s: normal(s, tick) for s in range(SERIES)}
        if tick % 3 == 2:
            given = {s: EXTREMES[(s + tick) % len(EXTREMES)] for s in range(0, SERIES, 3)}
            payloads = [
                b'{"timestamp": %d, "value": %s}' % (NOW + tick * 1000, given.get(s, json.dumps(values[s])).encode())
                for s in values
            ]
            decoded = codec.decode([b"%d" % s for s in values], payloads, np.full(SERIES, NOW))
            assert decoded.bad.keys() == given.keys()
            assert set(decoded.bad.values()) <= {Reason.INVALID_JSON, Reason.VALUE_OUT_OF_RANGE}
            for s in given:
                values[s] = [1e30, -1e30, 1e-30, np.nan][(s + tick) % 4]  # as large as a value may be; missing
        said = step(engine, values, tick)
        without = step(alone, {s: value for s, value in values.items() if s % 3}, tick)
        rest = said.take(np.array([i for i, s in enumerate(values) if s % 3]))
        for field in fields(Forecasts):
            one, other = getattr(rest, field.name), getattr(without, field.name)
            np.testing.assert_allclose(one, other, rtol=OUTPUT_CLOSE, atol=OUTPUT_CLOSE, err_msg=field.name)
    rows = {int(key): row for some in engine.arena.cut(0).chunks(1000) for key, row in zip(*some, strict=True)}
    parsed = engine.layout.parse([rows[s] for s in range(SERIES)])
    fed = np.arange(SERIES) % 3 == 0
    for name in engine.layout.fields:
        body = parsed["body"][name]
        unknown = np.isnan(body[~fed]).any(axis=0)  # what a profile does not know yet is NaN
        assert (np.isfinite(body) | (np.isnan(body) & unknown)).all(), name
    for name in parsed["alarm"].dtype.names or ():
        assert np.isfinite(parsed["alarm"][name]).all(), name
