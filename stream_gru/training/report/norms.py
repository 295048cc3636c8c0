"""Norms of the gradient and weight of every parameter, as a fit logs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from stream_gru.columns import Floats

Kind = Literal["gradient", "weight"]
_START = "start"  # the learned first state, which cells alone have


@dataclass(frozen=True)
class Norms:
    """Euclidean norms at C steps."""

    step: Floats  # (C,)
    gradient: Mapping[str, Floats]  # of each parameter, (C,), before clipping
    weight: Mapping[str, Floats]

    def groups(self, kind: Kind) -> dict[str, Floats]:
        """Norms of the parameters together that belong to one part of the network, (C,) by its name."""
        squares: dict[str, Floats] = {}
        for name, norm in getattr(self, kind).items():
            group = _part(name)
            squares[group] = squares.get(group, 0.0) + norm**2
        return {name: np.sqrt(square) for name, square in squares.items()}

    def cells(self) -> list[str]:
        """The groups that are recurrent cells."""
        return [_part(name) for name in self.gradient if name.rpartition(".")[2] == _START]


def _part(parameter: str) -> str:
    """``network.parts.0.recurrent`` -> ``network.parts.0``."""
    return parameter.rpartition(".")[0] or parameter


def read(file: Path) -> Norms | None:
    """The norms in a log, a CSV with ``step``, ``gradient.PARAMETER`` and ``weight.PARAMETER``; None: nothing in it."""
    if not file.is_file():
        return None
    table = pl.read_csv(file, infer_schema_length=None)
    columns = {name: table[name].cast(pl.Float64).to_numpy() for name in table.columns}
    if not len(table):
        return None

    def of(kind: Kind) -> dict[str, Floats]:
        return {name[len(kind) + 1 :]: column for name, column in columns.items() if name.startswith(kind)}

    return Norms(columns["step"], of("gradient"), of("weight"))
