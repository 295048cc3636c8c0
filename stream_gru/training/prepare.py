"""Windows as the network meets them: the features stepped through them, as the engine would for new series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stream_gru import features
from stream_gru.models.bundle import Description
from stream_gru.training.data.windows import Windows, join

_SETTLED = 2  # readings before a forecast counts
_LEAST_UNIT = 0.02  # of the series' own mean difference: a lucky streak of a flat series may not weigh more


class Prepared(NamedTuple):
    """T readings of N series."""

    x: Tensor  # (D, T, N) inputs of the network
    moves: Tensor  # (A - 1, T, N)
    unit: Tensor  # (1, T, N)
    target: Tensor  # (1 + K, T, N) values at the steps, relative to the last; NaN: not to be learned
    scale: Tensor  # (1, T, N) what one is in the loss
    length: Tensor  # (1, 1, N) how many of the T are no padding; on the host

    @property
    def padded(self) -> bool:
        """Whether the sequences are of different lengths."""
        return int(self.length.min()) < self.x.shape[1]

    def split(self, size: int, dim: int) -> Iterator[Prepared]:
        """Portions of `size` readings (`dim` 1) or series (`dim` 2)."""
        *columns, length = self
        parts = zip(*(torch.split(column, size, dim) for column in columns), strict=True)
        if dim == 1:
            for i, part in enumerate(parts):
                yield Prepared._make((*part, (length - i * size).clamp(0, part[0].shape[1])))
        else:
            for part, lengths in zip(parts, torch.split(length, size, dim), strict=True):
                yield Prepared._make((*part, lengths))


@torch.no_grad()
def prepare(windows: Windows, description: Description, device: torch.device | str = "cpu") -> Prepared:
    """Inputs and targets of windows for the model that `description` means."""
    n, length = windows.value.shape
    columns = _observe(windows, description).to(device).view(-1, length, n)
    extras = torch.from_numpy(_context(windows, description)).to(device).view(-1, length, n)
    state = features.Features(*(torch.zeros(width, n, device=device) for width in features.FIELDS.values()))
    constants = features.Constants.on(device)
    fixed = description.scaling.kind != "online"
    xs, moves, units = [], [], []
    for t in range(length):
        now = features.Observation.of(columns[:, t])
        state = features.update(state, now, constants)
        x, unit = features.inputs(state, now, fixed)
        xs.append(x)
        moves.append(features.moves(state))
        units.append(unit)
    target, size = _targets(windows, (1, *description.horizons))
    unit = torch.stack(units, 1)  # (1, T, N)
    scale = torch.maximum(unit, torch.from_numpy(size).to(device) * _LEAST_UNIT)
    x = torch.cat([torch.stack(xs, 1), extras])
    lengths = torch.from_numpy(windows.length)[None, None]
    return Prepared(x, torch.stack(moves, 1), unit, torch.from_numpy(target).to(device), scale, lengths)


def together(
    batches: Sequence[Windows], description: Description, device: torch.device | str = "cpu"
) -> list[Prepared]:
    """`prepare` of several batches at once: the features cost little more for many series than for few."""
    *columns, length = prepare(join(batches), description, device)
    sizes = [len(batch.value) for batch in batches]
    parts = zip(*(torch.split(column, sizes, 2) for column in columns), torch.split(length, sizes, 2), strict=True)
    return [
        Prepared._make((*(column[:, : batch.value.shape[1]] for column in part), lengths))
        for batch, (*part, lengths) in zip(batches, parts, strict=True)
    ]


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


def _targets(windows: Windows, steps: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Values `steps` ahead less the present one, (1 + K, T, N), and the mean difference of each series, (N,)."""
    value, length = windows.value, windows.value.shape[1]
    target = np.full((len(steps), length, len(value)), np.nan, np.float32)
    for k, ahead in enumerate(steps):
        if ahead < length:
            learned = windows.known[:, ahead:]
            target[k, :-ahead] = np.where(learned, value[:, ahead:] - value[:, :-ahead], np.nan).T
        target[k, :_SETTLED] = np.nan
    size = np.abs(np.diff(value, axis=1)).sum(1) / np.maximum(windows.length - 1, 1)
    return target, (size + 1e-12 * np.abs(value).max(1) + 1e-30).astype(np.float32)
