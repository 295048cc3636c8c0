"""Recurrent cells (one file each), the forecaster around them, and bundles on disk."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol

from torch import Tensor

from stream_gru.errors import BundleError


class Cell(Protocol):
    """A recurrent network whose whole memory of a series is one vector of `state_size` floats.

    What needs a window of the past (attention, convolution) keeps a ring of it in that vector, so that it streams too.
    """

    state_size: int  # S
    output_size: int  # H

    def __init__(self, inputs: int, hidden: int) -> None: ...

    def initial_state(self, n: int) -> Tensor:
        """The state of `n` series that no input was seen of, (n, S)."""
        ...

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One input of each of n series: x (n, D), state (n, S) -> output (n, H), state (n, S)."""
        ...

    def unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The same as T steps: x (T, n, D), state (n, S) -> outputs (T, n, H), state (n, S)."""
        ...


def cells() -> dict[str, type[Cell]]:
    """Every cell there is, by the name of its module: the modules here that have a class `Cell` of their own."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        cell = getattr(importlib.import_module(f"{__name__}.{module.name}"), "CELL", None)
        if cell is not None:
            found[module.name] = cell
    return found


def cell(name: str) -> type[Cell]:
    """The cell called `name`."""
    known = cells()
    if name not in known:
        raise BundleError(f"there is no cell {name!r}; there are {', '.join(sorted(known))}")
    return known[name]
