"""The rows of an `Engine` in one file, as safetensors: names, rows, and what `Recall` keeps. No pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stream_gru.columns import Ints
from stream_gru.engine.device import Columns
from stream_gru.engine.row import RowBytes
from stream_gru.errors import DataError, OutputError

_FORMAT = "stream_gru rows 1"


class Identity(NamedTuple):
    """What rows belong to: they mean nothing to another model."""

    digest: str  # of the bundle
    version: str  # of the row's layout
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """N series of F features."""

    scored: int  # readings, of all series
    names: list[bytes]
    rows: RowBytes  # (N, row_bytes)
    had: Ints  # (M,) which of the N F bodies had a reading
    before: torch.Tensor  # (M, W) see `Recall.read`
    given: Columns  # (rows, M)


def write(path: Path, identity: Identity, what: Saved) -> None:
    """Write a file that appears whole or not at all. Raises `OutputError`."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "names": np.frombuffer(msgspec.json.encode([name.decode() for name in what.names]), np.uint8),
        "rows": what.rows,
        "had": what.had,
        "given": np.ascontiguousarray(what.given),
    }
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    about = {"format": _FORMAT, "scored": str(what.scored)}
    about |= {name: json.dumps(value) for name, value in identity._asdict().items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file({**tensors, "before": what.before.cpu().contiguous()}, partial, about)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} can't be written: {error}") from None


def read(path: Path, identity: Identity) -> Saved:
    """What `write` wrote. Raises `DataError` for another file, and for rows of another model."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != _FORMAT:
                raise DataError(f"{path} holds no rows that Engine.save wrote")
            for name, own in identity._asdict().items():
                if json.dumps(own) != about.get(name):
                    raise DataError(
                        f"{path} belongs to another {_MEANT[name]}: {about.get(name)}, here {json.dumps(own)}"
                    )
            tensors = {name: file.get_tensor(name) for name in ("names", "rows", "had", "before", "given")}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    names: list[str] = msgspec.json.decode(tensors["names"].numpy().tobytes(), type=list[str])
    return Saved(
        int(about["scored"]),
        [name.encode() for name in names],
        tensors["rows"].numpy(),
        tensors["had"].numpy(),
        tensors["before"],
        tensors["given"].numpy(),
    )


_MEANT = {"digest": "model", "version": "version of the rows", "features": "set of features"}
