"""The rows of an `Engine` in one file, as safetensors: names, rows, and what `Recall` keeps. No pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stream_gru.columns import Ints
from stream_gru.engine.device import Columns
from stream_gru.engine.row import RowBytes
from stream_gru.errors import DataError, OutputError

_FORMAT = "stream_gru rows 1"
_PARTS = ("names", "rows", "had", "before", "given")


class Identity(NamedTuple):
    """What rows belong to: they mean nothing to another model."""

    features: tuple[str, ...]
    model: str  # its name, for people
    digest: str  # of the bundle
    version: str  # of the row's layout


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
        "before": what.before.cpu().numpy(),
        "given": what.given,
    }
    tensors = {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}
    about = {"format": _FORMAT, "scored": str(what.scored), "sha256": _digest(tensors)}
    about |= {name: json.dumps(value) for name, value in identity._asdict().items()}
    target = path.resolve()  # what a link points to is written, and the link stays
    if target.exists() and not target.is_file():
        raise OutputError(f"{path} can't be written: it is no ordinary file")
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_bytes(save(tensors, about))
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path} can't be written: {error.strerror}") from None


def read(path: Path, identity: Identity) -> Saved:
    """What `write` wrote. Raises `DataError` for another file, a damaged one, and for rows of another model."""
    try:
        if not path.is_file():
            raise DataError(f"{path} can't be read: there is no such file")
        path.open("rb").close()  # a file that may not be read is said to be missing below
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != _FORMAT:
                raise DataError(f"{path} holds no rows that Engine.save wrote")
            _require(path, identity, about)
            tensors = {name: file.get_tensor(name) for name in _PARTS}
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None
    except SafetensorError as error:
        raise DataError(f"{path} can't be read: {error}") from None
    if _digest(tensors) != about["sha256"]:
        raise DataError(f"{path} is damaged: it does not hold what Engine.save wrote")
    names: list[str] = msgspec.json.decode(tensors["names"].numpy().tobytes(), type=list[str])
    return Saved(
        int(about["scored"]),
        [name.encode() for name in names],
        tensors["rows"].numpy(),
        tensors["had"].numpy(),
        tensors["before"],
        tensors["given"].numpy(),
    )


def _require(path: Path, identity: Identity, about: Mapping[str, str]) -> None:
    """Raises `DataError` where rows belong to something else than `identity`."""
    there = {name: json.loads(about[name]) for name in Identity._fields}
    if there["features"] != list(identity.features):
        apart = ", ".join(there["features"]), ", ".join(identity.features)
        raise DataError(f"{path} holds readings of {apart[0]}; the features of this engine are {apart[1]}")
    if (there["digest"], there["version"]) != (identity.digest, identity.version):
        raise DataError(f"{path} belongs to the model {there['model']}, not to {identity.model} as it is served here")


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256, hex."""
    digest = hashlib.sha256()
    for name in _PARTS:
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
