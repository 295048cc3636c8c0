"""What a reading found: enough to say again what was forecast from it, and for any other steps."""

from __future__ import annotations

import numpy as np
import torch

from stream_gru.columns import Bools, Ints
from stream_gru.engine.device import Columns


class Recall:
    """Keeps of each body, a row of `bodies` (n, W), what it was before its last reading, and what the device was given
    of that reading. A `stepper.Tape`."""

    def __init__(self, bodies: torch.Tensor) -> None:
        # Left uninitialised, as the arena is, so that memory is taken only as series come.
        self._bodies, self._before = bodies, torch.empty_like(bodies)
        self._given: Columns = np.empty((len(bodies), 0), np.float32)
        self._known = np.zeros(len(bodies), np.bool_)

    def __call__(self, bodies: Ints, given: Columns) -> None:
        """The readings of these `bodies` (n,) are about to be stepped; `given` (rows, n)."""
        if self._given.shape[1] != len(given):
            self._given = np.empty((len(self._bodies), len(given)), np.float32)
        index = torch.from_numpy(bodies).to(self._bodies.device)
        self._before.index_copy_(0, index, self._bodies.index_select(0, index))
        self._given[bodies] = given.T
        self._known[bodies] = True

    def knows(self, bodies: Ints) -> Bools:
        """Which of these (n,) had a reading."""
        return self._known[bodies]

    def read(self, bodies: Ints) -> tuple[torch.Tensor, Columns]:
        """Of `bodies` (n,) that had one: what they were before it, (n, W), and what was given of it, (rows, n)."""
        index = torch.from_numpy(bodies).to(self._bodies.device)
        return self._before.index_select(0, index), self._given[bodies].T.copy()

    def write(self, bodies: Ints, before: torch.Tensor, given: Columns) -> None:
        """As `read` gave it."""
        if self._given.shape[1] != len(given):
            self._given = np.empty((len(self._bodies), len(given)), np.float32)
        self._before.index_copy_(0, torch.from_numpy(bodies).to(self._bodies.device), before.to(self._bodies.device))
        self._given[bodies] = given.T
        self._known[bodies] = True

    def forget(self, bodies: Ints) -> None:
        """They had no reading."""
        self._known[bodies] = False
