"""Windows varied at random each time they are drawn, so that the same history teaches more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_gru.columns import Bools, Floats, Ints
from stream_gru.training.data.missing import How, forward
from stream_gru.training.data.windows import Windows
from stream_gru.training.recipe import Augment

_MOST_SWINGS = 3  # of the speed in a window, at most


def augment(windows: Windows, how: Augment, missing: How, rng: np.random.Generator) -> Windows:
    """Warp, add noise, take readings away: what `how` asks for. The same rng gives the same windows."""
    if how.warp:
        windows = warp(windows, how.warp, rng)
    if how.noise:
        windows = noise(windows, how.noise, rng)
    if how.mask:
        windows = mask(windows, how.mask, missing, rng)
    if missing == "forward":  # the values before, as they are now
        windows = replace(windows, value=forward(np.where(windows.known, windows.value, np.nan)))
    return windows


def noise(windows: Windows, size: float, rng: np.random.Generator) -> Windows:
    """Add normal noise; its deviation is `size` mean differences of the window."""
    step = np.abs(np.diff(windows.value, axis=1)).sum(1) / np.maximum(windows.length - 1, 1)
    value = windows.value + rng.normal(size=windows.value.shape) * windows.known * (size * step)[:, None]
    return replace(windows, value=_padded(value, windows.length))


def warp(windows: Windows, size: float, rng: np.random.Generator) -> Windows:
    """Let time run up to 1 + `size` times faster or slower in stretches of a window; its ends stay where they are.

    Values are interpolated, the timestamps stay. A value that a filled-in one went into isn't known.
    """
    position = np.arange(windows.value.shape[1])
    turn = position / np.maximum(windows.length, 1)[:, None]
    swings, phase = rng.integers(1, _MOST_SWINGS + 1, (len(turn), 1)), rng.random((len(turn), 1))
    speed = (1 + size) ** np.sin(2 * np.pi * (swings * turn + phase))
    passed = np.cumsum(speed, axis=1) - speed[:, :1]
    last = (windows.length - 1)[:, None]
    end = np.take_along_axis(passed, last, 1)
    source = np.minimum(passed * (last / np.where(end > 0, end, 1)), last)
    before = np.floor(source).astype(np.int64)
    after = np.minimum(before + 1, last)
    share = source - before
    low, high = (np.take_along_axis(windows.value, index, 1) for index in (before, after))
    value = low + (high - low) * share
    known = np.take_along_axis(windows.known, before, 1) & (np.take_along_axis(windows.known, after, 1) | (share == 0))
    covariates = np.take_along_axis(windows.covariates, before[..., None], 1)
    return replace(windows, value=value, known=known & (position <= last), covariates=covariates)


def mask(windows: Windows, share: float, missing: How, rng: np.random.Generator) -> Windows:
    """Take away that share of the readings but the first: left out, or filled in as `missing` says.

    A line also takes the place of a forecast, which would take a model's run through every batch.
    """
    position = np.arange(windows.value.shape[1])
    gone = (rng.random(windows.value.shape) < share) & windows.known & (position > 0)
    if missing == "mask":
        return _without(windows, gone)
    known = windows.known & ~gone
    value = forward(np.where(known, windows.value, np.nan)) if missing == "forward" else _lined(windows, known)
    return replace(windows, value=_padded(value, windows.length), known=known)


def _without(windows: Windows, gone: Bools) -> Windows:
    """Close the gaps; the freed places at the end are padding."""
    length = windows.length - gone.sum(1)
    index = _padded(np.argsort(gone, axis=1, kind="stable"), length)
    inside = np.arange(index.shape[1]) < length[:, None]
    made = Windows(
        np.take_along_axis(windows.timestamp, index, 1),
        np.take_along_axis(windows.value, index, 1),
        length,
        np.take_along_axis(windows.known, index, 1) & inside,
        windows.feature,
        np.take_along_axis(windows.covariates, index[..., None], 1),
    )
    return made.take(np.arange(len(length)))


def _lined(windows: Windows, known: Bools) -> Floats:
    value = windows.value.copy()
    for row, (time, real) in enumerate(zip(windows.timestamp, known, strict=True)):
        value[row] = np.where(real, value[row], np.interp(time, time[real], value[row, real]))
    return value


def _padded(column: npt.NDArray[Any], length: Ints) -> npt.NDArray[Any]:
    """(n, L) with the last reading of each window repeated behind it."""
    index = np.minimum(np.arange(column.shape[1]), (length - 1)[:, None])
    return np.take_along_axis(column, index, 1)
