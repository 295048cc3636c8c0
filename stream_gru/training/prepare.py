"""Windows as the network meets them: the features stepped through them, as the engine would for new series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stream_gru import features
from stream_gru.columns import Ints
from stream_gru.models.bundle import Description
from stream_gru.training.data.windows import Windows, join

_SETTLED_READINGS = 2  # readings before a forecast counts
_LEAST_UNIT_SHARE = 0.02  # of the series' own mean difference: a lucky streak of a flat series may not weigh more


class Prepared(NamedTuple):
    """T readings of N series."""

    x: Tensor  # (D, T, N) inputs of the network
    moves: Tensor  # (S, A - 1, T, N)
    unit: Tensor  # (1, T, N)
    target: Tensor  # (S, T, N) values at the steps, relative to the last; NaN: not to be learned
    scale: Tensor  # (1, T, N) what one is in the loss
    length: Tensor  # (1, 1, N) how many of the T are no padding; on the host
    steps: Tensor  # (S, 1, N) how many each series is asked for

    @property
    def padded(self) -> bool:
        """Whether the sequences are of different lengths."""
        return int(self.length.min()) < self.x.shape[1]

    def to(self, device: torch.device) -> Prepared:
        """On that device."""
        return Prepared._make(column.to(device) for column in self)

    def split(self, size: int, dim: int) -> Iterator[Prepared]:
        """Portions of `size` readings (`dim` -2) or series (`dim` -1)."""
        *columns, length, steps = self
        parts = zip(*(torch.split(column, size, dim) for column in columns), strict=True)
        if dim == -2:
            for i, part in enumerate(parts):
                yield Prepared._make((*part, (length - i * size).clamp(0, part[0].shape[1]), steps))
        else:
            for part, *fixed in zip(parts, torch.split(length, size, dim), torch.split(steps, size, dim), strict=True):
                yield Prepared._make((*part, *fixed))


@torch.no_grad()
def prepare(
    windows: Windows,
    description: Description,
    device: torch.device | str = "cpu",
    steps: Ints | None = None,
) -> Prepared:
    """Inputs and targets of windows for the model that `description` means.

    `steps` (S, n) are what each series is asked for, 1 first; none: the model's own.
    """
    n, length = windows.value.shape
    if steps is None:
        steps = np.tile(np.array([[1], *([step] for step in description.horizons)]), n)
    ahead = torch.from_numpy(steps).float().to(device)
    columns = _observe(windows, description).to(device).view(-1, length, n)
    extras = torch.from_numpy(_context(windows, description)).to(device).view(-1, length, n)
    kind = features.find(description.features).to(device)
    state = torch.zeros(kind.size, n, device=device)
    table = features.RowTable(
        torch.full((n * kind.table,), float("nan"), device=device), torch.arange(n, device=device) * kind.table
    )
    fixed = description.scaling.kind != "online"
    xs, moves, units = [], [], []
    for t in range(length):
        now = features.Observation.of(columns[:, t])
        state, view = kind.advance(state, now, table, ahead, fixed=fixed)
        xs.append(view.x)
        moves.append(view.moves)
        units.append(view.unit)
    target, size = _targets(windows, steps)
    unit = torch.stack(units, 1)  # (1, T, N)
    scale = torch.maximum(unit, torch.from_numpy(size).to(device) * _LEAST_UNIT_SHARE)
    x = torch.cat([torch.stack(xs, 1), extras])
    lengths = torch.from_numpy(windows.length)[None, None]
    return Prepared(x, torch.stack(moves, 2), unit, torch.from_numpy(target).to(device), scale, lengths, ahead[:, None])


def together(
    batches: Sequence[Windows],
    description: Description,
    device: torch.device | str = "cpu",
    steps: Ints | None = None,
) -> list[Prepared]:
    """`prepare` of several batches at once: the features cost little more for many series than for few."""
    sizes = [len(batch.value) for batch in batches]
    parts = zip(
        *(torch.split(column, sizes, -1) for column in prepare(join(batches), description, device, steps)), strict=True
    )
    made = []
    for batch, part in zip(batches, parts, strict=True):
        *columns, length, taken = part
        made.append(Prepared._make((*(column[..., : batch.value.shape[1], :] for column in columns), length, taken)))
    return made


def _observe(windows: Windows, description: Description) -> Tensor:
    """(OBSERVED, L n), time first. A value that was filled in is put there as the engine does it."""
    n, length = windows.value.shape
    last = np.full((n, length), np.nan)
    last[:, 1:] = windows.value[:, :-1]
    before = np.zeros((n, length), np.int64)
    before[:, 1:] = windows.timestamp[:, :-1]
    position = np.arange(length)
    filled = ~windows.known & (position < windows.length[:, None]) & (position > 0)
    arrival = features.Arrival(
        np.where(filled, last, windows.value).T.ravel(),
        windows.timestamp.T.ravel(),
        last.T.ravel(),
        before.T.ravel(),
        np.repeat(position, n),
        np.where(position > 0, windows.value[:, :1], np.nan).T.ravel(),
    )
    columns = torch.from_numpy(features.observe(arrival, description.scaling.of(np.tile(windows.feature, length))))
    if not filled.any():
        return columns
    move = np.where(filled, windows.value - last, 0).astype(np.float32)
    where, moved = (torch.from_numpy(column.T.reshape(1, -1)) for column in (filled, move))
    return features.imputed(columns, where, moved)


def _context(windows: Windows, description: Description) -> np.ndarray:
    """(E, L n), time first."""
    covariates = windows.covariates.swapaxes(0, 1).reshape(windows.value.size, -1)
    return description.context.columns(windows.timestamp.T.ravel(), covariates)


def _targets(windows: Windows, steps: Ints) -> tuple[np.ndarray, np.ndarray]:
    """Values `steps` (S, N) ahead less the present one, (S, T, N), and the mean difference of each series, (N,)."""
    value, length = windows.value, windows.value.shape[1]
    target = np.full((len(steps), length, len(value)), np.nan, np.float32)
    for k, ahead in enumerate(steps):
        at = np.arange(length) + ahead[:, None]
        learned = np.take_along_axis(windows.known, np.minimum(at, length - 1), 1) & (at < length)
        later = np.take_along_axis(value, np.minimum(at, length - 1), 1)
        target[k] = np.where(learned, later - value, np.nan).T
        target[k, :_SETTLED_READINGS] = np.nan
    size = np.abs(np.diff(value, axis=1)).sum(1) / np.maximum(windows.length - 1, 1)
    return target, (size + 1e-12 * np.abs(value).max(1) + 1e-30).astype(np.float32)
