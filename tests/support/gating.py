"""Networks whose gates are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_gru.columns import Readings
from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle
from stream_gru.models.block import Block
from stream_gru.models.network import Network

MINUTE = 60_000


class Known(Block):
    """Its gates are its inputs and its states."""

    input_size = state_size = output_size = 5

    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 5)

    def gates(self, x: Tensor, state: Tensor) -> dict[str, Tensor]:
        return {"in": x, "kept": state}


def known(n: int) -> tuple[Tensor, Tensor]:
    x, state = torch.rand(2, n, 5, generator=torch.Generator().manual_seed(0)).unbind()
    x[0, 0], x[0, 1] = 0.0, 1.0  # saturated
    return x, state


def plain(folder: Path) -> Path:
    """A bundle without gates."""
    description = bundle.Description(name="plain", network=Network(cells=("rnn",), hidden=8), horizons=(2,))
    bundle.save(folder, description, bundle.build(description))
    return folder


def engine(features: int = 1, **options: Any) -> Stepper:
    made = Stepper(options.pop("bundle", Path("light")), features=features, capacity=200, device="cpu", **options)
    made.arena.open(0)
    return made


def readings(made: Stepper, names: list[bytes], value: npt.NDArray[np.float64]) -> Readings:
    n = len(names)
    slots = made.arena.admit(0, names)
    return Readings(slots, np.arange(n), 1_700_000_000_000 + MINUTE * np.arange(n), value.reshape(n, -1))
