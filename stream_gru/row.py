"""The state row: everything that is remembered of one series, as the bytes that the store keeps.

One contiguous little-endian record: ``int64 offset`` of the last record applied (-1: none), ``int64 timestamp`` of it
(epoch ms; `NEVER`: none), ``float64 last[F]``, ``float32 shared[S]`` with the named fields that all features of the
series have in common, then ``float32 body[F, W]`` with the named fields of each.

`last` is the last value of each feature, and every level in the body is kept relative to it. A counter at 1e12
therefore keeps its precision in float32 however far it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

NONE = -1  # the offset of a row that no record was applied to
NEVER = int(np.iinfo(np.int64).min)  # its timestamp
FORMAT = 1

Bytes2d = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rows:
    """B rows on the device, taken apart. All of them are views of `words`."""

    words: Tensor  # (B, row_bytes / 8) int64
    offset: Tensor  # (B,) int64
    timestamp: Tensor  # (B,) int64
    last: Tensor  # (B, F) float64
    shared: Tensor  # (B, S) float32
    body: Tensor  # (B, F, W) float32


@dataclass(frozen=True)
class Layout:
    """Where each field of a row lies. `fields` and `shared_fields` are names and widths in floats, in order."""

    features: int  # F
    fields: Mapping[str, int]  # of the body of each feature
    shared_fields: Mapping[str, int]
    width: int = field(init=False)  # W, floats in the body of one feature, even
    row_bytes: int = field(init=False)
    dtype: np.dtype[Any] = field(init=False)
    version: str = field(init=False)  # changes with every change of the bytes' meaning

    def __post_init__(self) -> None:
        widths, shared = _padded(self.fields), _padded(self.shared_fields)
        dtype = np.dtype(
            [
                ("offset", "<i8"),
                ("timestamp", "<i8"),
                ("last", "<f8", (self.features,)),
                ("shared", _floats(shared)),
                ("body", _floats(widths), (self.features,)),
            ]
        )
        meaning = f"{FORMAT} {self.features} {shared} {widths}"
        object.__setattr__(self, "fields", widths)
        object.__setattr__(self, "shared_fields", shared)
        object.__setattr__(self, "width", sum(widths.values()))
        object.__setattr__(self, "row_bytes", dtype.itemsize)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "version", f"{FORMAT}-{hashlib.sha256(meaning.encode()).hexdigest()[:12]}")

    def fresh(self, n: int, **start: npt.ArrayLike) -> Bytes2d:
        """Rows of `n` series that no reading was applied to, (n, row_bytes). `start` gives fields that aren't 0."""
        rows = np.zeros(n, self.dtype)
        rows["offset"] = NONE
        rows["timestamp"] = NEVER
        for name, value in start.items():
            rows["body"][name] = value
        return rows.view(np.uint8).reshape(n, self.row_bytes)

    def split(self, words: Tensor) -> Rows:
        """Views of the parts of gathered rows, (B, row_bytes / 8) int64."""
        shared = 2 + self.features
        body = shared + sum(self.shared_fields.values()) // 2
        return Rows(
            words,
            words[:, 0],
            words[:, 1],
            words[:, 2:shared].view(torch.float64),
            words[:, shared:body].view(torch.float32),
            words[:, body:].view(torch.float32).view(-1, self.features, self.width),
        )

    def parse(self, rows: Sequence[bytes] | Bytes2d) -> npt.NDArray[Any]:
        """Rows as bytes -> a structured array, for tools and tests."""
        joined = rows.tobytes() if isinstance(rows, np.ndarray) else b"".join(rows)
        return np.frombuffer(joined, self.dtype)


def as_bytes(rows: Bytes2d) -> list[bytes]:
    """(n, row_bytes) -> n bytes objects."""
    voids: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel().tolist() if len(rows) else []
    return voids


def _padded(widths: Mapping[str, int]) -> dict[str, int]:
    """A row is a whole number of int64 words, so every part of it has an even number of floats."""
    return {**widths, "padding": 1} if sum(widths.values()) % 2 else dict(widths)


def _floats(widths: Mapping[str, int]) -> np.dtype[Any]:
    return np.dtype([(name, "<f4", (n,)) for name, n in widths.items()])
