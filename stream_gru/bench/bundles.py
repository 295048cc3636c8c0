"""`stream-gru bench bundles`: what bundles cost in service, and how well they forecast one history, in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle as stored
from stream_gru.training.comparison import cost
from stream_gru.training.data.series import SeriesCollection
from stream_gru.training.rolling import Origins, by_origins

_BATCH = 4096  # series that are stepped at once
_ROUNDS = 21


def run(
    folders: Sequence[Path], history: SeriesCollection, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """By bundle, the package's first: parameters, bytes of a row, readings a second of the engine alone on one CPU
    thread and its ratio to the package's, errors against repeating the last value and coverage of 90% for each step
    ahead, cold start included. The timings take turns, and a ratio is the median of those of each turn: machines are
    noisy."""
    bundles = [stored.load(), *map(stored.load, folders)]
    torch.set_num_threads(1)  # as a worker has it
    tell("the time of a step")
    tasks = {one.name: cost.engine_step(one.description, one.forecaster, _BATCH) for one in bundles}
    seconds = cost.interleaved(tasks, _ROUNDS, cost.clock("cpu", 1))
    own = seconds[bundles[0].name]
    rows = {}
    for one, folder in zip(bundles, [None, *folders], strict=True):
        tell(f"{one.name} over the history")
        (block,) = by_origins(history, folder, Origins(blocks=1), device="cpu")
        rows[one.name] = {
            "parameters": cost.parameters(one.forecaster),
            "row_bytes": Stepper(folder, capacity=1, device="cpu").layout.row_bytes,
            "readings_per_s": round(_BATCH / cost.median(seconds[one.name])),
            "ratio": round(cost.median([a / b for a, b in zip(own, seconds[one.name], strict=True)]), 3),
            "error": dict(zip(block.score.steps, block.score.error, strict=True)),
            "coverage": dict(zip(block.score.steps, block.score.coverage, strict=True)),
        }
    return rows
