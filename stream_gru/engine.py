"""The model side, without Kafka or Redis: readings in, forecasts and scores out.

One batch passes in waves, so that each series comes at most once a wave; a wave is one gather of rows, the straight
line score -> features -> step -> forecast, and one scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_gru import detector, features, settings
from stream_gru.arena import Arena
from stream_gru.batch import Forecasts, Level, Readings, waves
from stream_gru.detector import Detector
from stream_gru.errors import SettingsError
from stream_gru.features import Features
from stream_gru.models import bundle as bundles
from stream_gru.row import Layout, Rows

_PARTITION = 0  # where `score` keeps its series
_VERDICT = 6  # score, flag, alert score, alert, closes, level


class Engine:
    """All series of one process: their rows in an arena, stepped by one set of weights."""

    def __init__(
        self,
        bundle: Path | None = None,
        *,
        features: int | Sequence[str] = 1,
        capacity: int = 1_000_000,
        device: str = "auto",
        threads: int = 1,
        detector: settings.Detector | None = None,
    ) -> None:
        """`bundle` is a folder, none: the one in the package. `features` is how many values a reading has, or their
        names; `capacity` the most series held at once. Raises `BundleError`, and `SettingsError` for the device."""
        self.device = _device(device)
        self.names = tuple(features) if not isinstance(features, int) else ("value",) * features
        self.capacity = capacity
        self.detector = detector or settings.Detector()
        torch.set_num_threads(threads)
        self._load(bundles.load(bundle))

    def reload(self, bundle: Path | None) -> None:
        """Take another model. Every row starts anew: what was resident is dropped, open partitions stay open."""
        loaded = bundles.load(bundle)
        partitions = self.arena.partitions
        self._load(loaded)
        for partition in partitions:
            self.arena.open(partition)

    def _load(self, bundle: bundles.Bundle) -> None:
        self.bundle = bundle
        self.forecaster = bundle.forecaster.to(self.device)
        self._sizes = [*features.FIELDS.values(), 3, bundle.horizons[0], *detector.FIELDS.values()]
        names = [*features.FIELDS, "forecast", "waiting", *detector.FIELDS]
        cell = self.forecaster.cell
        self.layout = Layout(
            len(self.names), {**dict(zip(names, self._sizes, strict=True)), "hidden": cell.state_size}, detector.SHARED
        )
        self._constants = features.constants(self.device)
        with torch.inference_mode():
            fresh = self.layout.fresh(1, hidden=cell.initial_state(1).cpu().numpy())
        self.arena = Arena(fresh[0], self.capacity, self.device)

    def step(self, readings: Readings) -> Forecasts:
        """Score N readings and learn from them, in order. The rows that changed are marked dirty.

        A reading that its row covers already gets the level COVERED, an older one LATE; neither changes anything.
        """
        parts = [(index, self._wave(readings.take(index))) for index in waves(readings.slot)]
        packed = _scattered(parts, len(readings), _VERDICT + (3 + 3 * len(self.bundle.horizons)) * len(self.names))
        forecasts = self._unpack(readings.value, packed)
        changed = (forecasts.level != Level.LATE) & (forecasts.level != Level.COVERED)
        self.arena.stepped(readings.slot[changed])
        return forecasts

    @torch.inference_mode()
    def _wave(self, readings: Readings) -> npt.NDArray[np.float64]:
        """Step distinct slots: gather, apply, scatter. (N, columns of the output) float64."""
        slots, offset, timestamp, y = (
            torch.from_numpy(np.ascontiguousarray(getattr(readings, f.name))).to(self.device) for f in fields(readings)
        )
        rows = self.layout.split(self.arena.words.index_select(0, slots))
        output = self._apply(rows, offset, timestamp, y)
        self.arena.words.index_copy_(0, slots, rows.words)
        result: npt.NDArray[np.float64] = output.cpu().numpy()
        return result

    def _apply(self, rows: Rows, offset: Tensor, timestamp: Tensor, y: Tensor) -> Tensor:
        """The straight line: B rows, changed in place, and a reading of each -> its output (B, columns)."""
        n = y.numel()
        state_size = self.forecaster.cell.state_size
        body = rows.body.reshape(n, -1)  # (N, W), N = B F
        hidden = body[:, sum(self._sizes) :][:, :state_size]
        old = body[:, : sum(self._sizes)].T.contiguous()  # (C, N)
        count, levels, lags, averages, expected, waiting, *judged = torch.split(old, self._sizes)

        covered, late = rows.offset >= offset, timestamp < rows.timestamp
        live = ~(covered | late)  # (B,)
        present = live[:, None] & ~y.isnan()  # (B, F)
        seen = present.view(1, n)
        first = count == 0
        dx = (y - rows.last).float().view(1, n).masked_fill(first, 0)
        seconds = (timestamp - rows.timestamp).float().clamp(min=0)[:, None].expand_as(y).reshape(1, n) * 1e-3
        log_gap = (seconds + 1e-3).log().masked_fill(first, 0)
        value = y.float().view(1, n)

        # score: against the forecasts made for this reading, before it is learned from
        near, far = dx - expected[1:2], dx - waiting[:1]
        score, watch = detector.score(Detector(*judged), count, near, far, value.abs())
        # features
        seen_state = features.update(Features(count, levels, lags, averages), dx, log_gap, self._constants)
        times = timestamp[:, None].expand_as(y).reshape(1, n)
        x, unit = features.inputs(seen_state, value, log_gap, times, self._constants)
        # step
        output, new_hidden = self.forecaster.cell.step(x.T, hidden)
        # forecast
        ahead = self.forecaster.forecast(output, features.anchors(seen_state), unit)  # (1 + K, 3, N)

        new = torch.cat([*seen_state, ahead[0], waiting[1:] - dx, ahead[1, 1:2], *watch])
        judged_now = seen & (count >= self.detector.min_n_samples_seen)
        result = self._verdict(rows, present, judged_now, score)
        hindsight = torch.where(seen & ~first, expected[[1, 0, 2]], torch.nan)
        outlook = torch.where(seen, ahead[1:, [1, 0, 2]].flatten(0, 1), torch.nan)
        shape = (-1, *y.shape)
        columns = torch.cat(
            [
                hindsight.double().view(shape) + rows.last,
                outlook.double().view(shape) + y,
            ]
        )  # (3 + 3 K, B, F)

        level = torch.where(judged_now.view(y.shape).any(1), Level.NORMAL + (result[1] > 0), Level.WARMUP)
        level = torch.where(present.any(1), level, Level.MISSING)
        level = torch.where(late, Level.LATE, level)
        level = torch.where(covered, Level.COVERED, level)

        rows.body.copy_(
            torch.cat(
                [
                    torch.where(seen, new, old).T,
                    torch.where(seen.T, new_hidden, hidden),
                    body[:, sum(self._sizes) + state_size :],
                ],
                1,
            ).view(rows.body.shape)
        )
        rows.last.copy_(torch.where(present, y, rows.last))
        rows.offset.copy_(torch.where(live, offset, rows.offset))
        rows.timestamp.copy_(torch.where(live, timestamp, rows.timestamp))
        return torch.cat([result.double(), level[None], columns.movedim(0, -1).flatten(1).T]).T

    def _verdict(self, rows: Rows, present: Tensor, judged: Tensor, score: Tensor) -> Tensor:
        """Scores of the features -> score, flag, alert score and alert of the reading, (5, B)."""
        each = torch.where(judged, score, 0).view(present.shape) / self.detector.threshold
        total = detector.combine(each, 1)[:, 0]
        flag, seen = total > 1, present.any(1)
        alarm = rows.shared[:, 0]
        alert = flag & (alarm == 0)
        closes = seen & ~flag & (alarm > 0)
        alarm.copy_(torch.where(seen, flag, alarm))
        missing = torch.where(seen, 0.0, torch.nan)
        return torch.stack([total + missing, flag, torch.where(alert, total, 0) + missing, alert, closes])

    def _unpack(self, y: npt.NDArray[np.float64], packed: npt.NDArray[np.float64]) -> Forecasts:
        n, f = y.shape
        score, flag, alert_score, alert, closes, level = packed[:, :_VERDICT].T
        columns = packed[:, _VERDICT:].reshape(n, f, -1, 3).transpose(0, 2, 3, 1)  # (N, 1 + K, 3, F)
        with np.errstate(invalid="ignore"):
            grade = 1 - 1 / np.maximum(score, 1)
        return Forecasts(
            y,
            columns[:, 0, 0],
            columns[:, 0, 1],
            columns[:, 0, 2],
            columns[:, 1:],
            score,
            grade,
            flag > 0,
            alert_score,
            alert > 0,
            closes > 0,
            level.astype(np.int8),
        )


def _scattered(parts: list[tuple[Any, npt.NDArray[np.float64]]], n: int, width: int) -> npt.NDArray[np.float64]:
    """The results of the waves, back in the order of the readings."""
    if len(parts) == 1:
        return parts[0][1]
    packed = np.empty((n, width))
    for index, part in parts:
        packed[index] = part
    return packed


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"model.device: {name} was asked for, but torch finds no CUDA device; use auto or cpu")
    return torch.device(name)
