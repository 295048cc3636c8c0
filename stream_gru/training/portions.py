"""What a fit learns from, step by step: batches of windows, prepared and cut into chunks of time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch

from stream_gru.columns import Ints
from stream_gru.errors import TrainingError
from stream_gru.models.bundle import Description
from stream_gru.training.data import Windows, WindowSource
from stream_gru.training.prepare import Prepared, together
from stream_gru.training.recipe import FitPlan

_FARTHEST_STEP = 48  # step that heads for any step learn
_BATCHES_AT_ONCE = 8  # batches whose features are stepped together: they cost little more for many series than for few


class Portion(NamedTuple):
    """A chunk of a batch."""

    prepared: Prepared
    slot: int  # whose state it goes on from: its batch's place among those whose gradients make one step
    follows: bool  # it goes on where the one before it, of the same slot, ended


class Portions:
    """The chunks of a source's batches for ever, in the same order for the same seed.

    With gradients accumulated over k batches, k of them take turns: a step sees one chunk of each.
    """

    def __init__(self, source: WindowSource, description: Description, plan: FitPlan, device: torch.device) -> None:
        self._source, self._description, self._plan, self._device = source, description, plan, device
        self._position = 0  # how many were taken

    def __len__(self) -> int:
        """As good as endless; told, so that lightning takes none before it needs it."""
        return sys.maxsize

    def state_dict(self) -> dict[str, int]:
        """For a checkpoint."""
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """From a checkpoint: those that were taken are passed over."""
        self._position = state["position"]

    def __iter__(self) -> Iterator[Portion]:
        batches = iter(self._source.batches(np.random.default_rng(self._plan.seed)))
        accumulate = self._plan.accumulate
        size = max(1, _BATCHES_AT_ONCE // accumulate) * accumulate
        passed = self._position
        for number in count():
            windows = list(islice(batches, size))
            if not windows:
                raise TrainingError("the source of the fit has no more batches; it must go on for ever")
            chunks_now = sum(-(-each.value.shape[1] // self._plan.chunk) for each in windows)
            if passed >= chunks_now:
                passed -= chunks_now
                continue
            for portion in islice(
                self._round(windows, self._steps(number, sum(len(each.value) for each in windows))), passed, None
            ):
                self._position += 1
                yield portion
            passed = 0

    def _steps(self, number: int, n: int) -> Ints | None:
        """Of the `n` series of round `number`: heads that can forecast any step learn one a series besides the next."""
        if self._description.features != "experts":
            return None
        farther = _FARTHEST_STEP ** np.random.default_rng([self._plan.seed, number]).uniform(0.15, 1, n)
        return np.stack([np.ones(n, np.int64), np.ceil(farther).astype(np.int64)])

    def _round(self, windows: Sequence[Windows], steps: Ints | None) -> Iterator[Portion]:
        batches = together(windows, self._description, self._device, steps)
        for first in range(0, len(batches), self._plan.accumulate):
            group = [
                list(batch.split(self._plan.chunk, -2)) for batch in batches[first : first + self._plan.accumulate]
            ]
            for i in range(max(map(len, group))):
                for slot, chunks in enumerate(group):
                    if i < len(chunks):
                        yield Portion(chunks[i], slot, i > 0)
