"""Resident memory of the engine by number of series: ``python -m stream_gru.bench.memory [BUNDLE]`` prints one JSON
line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from stream_gru.columns import Readings
from stream_gru.engine.stepper import Stepper

FEW, MANY = 100_000, 1_000_000
_BATCH = 8192


def main() -> None:
    """Step every series once, at FEW series and at MANY; the slope is what one more series costs."""
    torch.set_num_threads(1)  # as a worker has it
    engine = Stepper(Path(sys.argv[1]) if len(sys.argv) > 1 else None, capacity=MANY, device="cpu")
    engine.arena.open(1)
    _grow(engine, 0, FEW)
    few = _resident()
    _grow(engine, FEW, MANY)
    slope = (_resident() - few) / (MANY - FEW)
    sys.stdout.write(json.dumps({"row_bytes": engine.layout.row_bytes, "rss_bytes_per_series": round(slope, 1)}) + "\n")


def _grow(engine: Stepper, first: int, last: int) -> None:
    for start in range(first, last, _BATCH):
        n = min(_BATCH, last - start)
        keys = [b"plant-07/line-3/sensor-%09d" % i for i in range(start, start + n)]  # 32 bytes
        slots = engine.arena.insert(1, keys)
        now = np.full(n, 1_700_000_000_000)
        engine.step(Readings(slots, np.arange(n), now, np.ones((n, 1))))
        engine.arena.cut(1)
        engine.arena.confirm(1)


def _resident() -> int:
    """Bytes, from the kernel."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
