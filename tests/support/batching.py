"""A log through an engine, batch by batch."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import numpy as np

from stream_gru.columns import Forecasts, Readings
from stream_gru.engine.stepper import Stepper


def run(engine: Stepper, log: Readings, cuts: list[int]) -> Forecasts:
    """Step fresh series through `log`, batch by batch."""
    for partition in engine.arena.partitions:
        engine.arena.close(partition)
    engine.arena.open(0)
    slots = engine.arena.admit(0, [b"%d" % s for s in range(int(log.slot.max()) + 1)])
    log = replace(log, slot=slots[log.slot])
    bounds = [0, *cuts, len(log)]
    parts = [engine.step(log.take(slice(a, b))) for a, b in itertools.pairwise(bounds) if a < b]
    return Forecasts(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Forecasts)))
