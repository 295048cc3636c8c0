"""The gates of a running model: counted for Prometheus, or kept reading by reading.

The engine calls its `watch`, if there is one, at each step with what the network is about to read. Without one nothing
here runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_gru.columns import Ints
from stream_gru.errors import BundleError
from stream_gru.models.block import Block

Watch = Callable[[Block, Tensor, Tensor, Tensor], None]
"""Called with the network, the bodies that are stepped (n,), all different, and their inputs (n, D) and states before
the step (n, S). Must not change any of them."""

BINS = 20  # the first and the last are the saturated units
_BOUNDS = tuple((i + 1) / BINS for i in range(BINS))
_MOST = 64  # readings of one step that are counted
_EXACT = 2**23  # as many ones float32 still counts


class Distribution(NamedTuple):
    """Activations since the start, in [0, 1]."""

    bounds: tuple[float, ...]  # (BINS,) upper ones
    counts: list[int]  # (BINS,)
    sum: float


class Histograms:
    """A watch that counts activations, on the device: nothing is fetched before `read`.

    Of a larger step 64 readings are counted, evenly spaced: they show the distribution as well, and to count all would
    take half as long as the step itself.
    """

    def __init__(self, network: Block, device: torch.device) -> None:
        """Raises `BundleError` for a network without gates. Another one may be loaded later."""
        self._device = device
        self._totals: dict[str, tuple[Tensor, Tensor]] = {}  # counts (BINS,), sum ()
        for name in names(network):
            self._of(name)

    def __call__(self, network: Block, bodies: Tensor, x: Tensor, state: Tensor) -> None:
        """Count the gates of this step; see `Watch`."""
        every = -(-len(bodies) // _MOST)
        for name, gate in network.gates(x[::every], state[::every]).items():
            counts, total = self._of(name)
            for part in torch.split(gate.flatten(), _EXACT):
                counts += torch.histc(part, BINS, 0, 1).to(torch.int64)
                total += part.sum(dtype=torch.float64)

    def read(self) -> dict[str, Distribution]:
        """By the gates' names. From any thread; a step that runs meanwhile is in it or not, perhaps in part."""
        totals = list(self._totals.items())
        return {name: Distribution(_BOUNDS, counts.tolist(), total.item()) for name, (counts, total) in totals}

    def _of(self, name: str) -> tuple[Tensor, Tensor]:
        if name not in self._totals:
            counts = torch.zeros(BINS, dtype=torch.int64, device=self._device)
            self._totals[name] = counts, torch.zeros((), dtype=torch.float64, device=self._device)
        return self._totals[name]


class Recorder:
    """A watch that keeps what the last step's gates were, and of which bodies."""

    def __init__(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """`reduce` makes of activations (n, units) what is kept, (n, R)."""
        self._reduce = reduce
        self.clear()

    def clear(self) -> None:
        """Nothing was stepped."""
        self.bodies: Ints = np.empty(0, np.int64)
        self.gates: dict[str, npt.NDArray[np.float32]] = {}

    def __call__(self, network: Block, bodies: Tensor, x: Tensor, state: Tensor) -> None:
        """See `Watch`."""
        self.bodies = bodies.cpu().numpy()
        self.gates = {name: self._reduce(gate).cpu().numpy() for name, gate in network.gates(x, state).items()}


def names(network: Block) -> tuple[str, ...]:
    """The gates that a network has. Raises `BundleError` if it has none."""
    state = network.initial_state(1)
    with torch.inference_mode():
        found = network.gates(state.new_zeros(1, network.input_size), state)
    if not found:
        raise BundleError("this model has no gates to look at, as a plain RNN has none; use one of GRU or LSTM cells")
    return tuple(found)
