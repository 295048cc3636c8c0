"""What a fit learns from, step by step: batches of windows, prepared and cut into chunks of time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from stream_gru.errors import TrainingError
from stream_gru.models.bundle import Description
from stream_gru.training.data import Source, Windows
from stream_gru.training.prepare import Prepared, together
from stream_gru.training.recipe import Plan

_AT_ONCE = 8  # batches whose features are stepped together: they cost little more for many series than for few


class Portion(NamedTuple):
    """A chunk of a batch."""

    prepared: Prepared
    slot: int  # whose state it goes on from: its batch's place among those whose gradients make one step
    follows: bool  # it goes on where the one before it, of the same slot, ended


class Portions:
    """The chunks of a source's batches for ever, in the same order for the same seed.

    With gradients accumulated over k batches, k of them take turns: a step sees one chunk of each.
    """

    def __init__(self, source: Source, description: Description, plan: Plan, device: torch.device) -> None:
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
        size = max(1, _AT_ONCE // accumulate) * accumulate
        passed = self._position
        while True:
            windows = list(islice(batches, size))
            if not windows:
                raise TrainingError("the source of the fit has no more batches; it must go on for ever")
            count = sum(-(-each.value.shape[1] // self._plan.chunk) for each in windows)
            if passed >= count:
                passed -= count
                continue
            for portion in islice(self._round(windows), passed, None):
                self._position += 1
                yield portion
            passed = 0

    def _round(self, windows: Sequence[Windows]) -> Iterator[Portion]:
        batches = together(windows, self._description, self._device)
        for first in range(0, len(batches), self._plan.accumulate):
            group = [list(batch.split(self._plan.chunk, 1)) for batch in batches[first : first + self._plan.accumulate]]
            for i in range(max(map(len, group))):
                for slot, chunks in enumerate(group):
                    if i < len(chunks):
                        yield Portion(chunks[i], slot, i > 0)
