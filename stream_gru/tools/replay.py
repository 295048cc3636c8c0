"""Send history files through Kafka, at the pace of their own clock or faster."""

from __future__ import annotations

import asyncio
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stream_gru.columns import Floats, Ints
from stream_gru.errors import DataError
from stream_gru.history import files as history
from stream_gru.settings import Settings
from stream_gru.tools.feed import Feed

SLICE = 8192  # readings sent at once
SLICE_S = 0.005  # readings due within so long are sent together


@dataclass(slots=True)
class Recording:
    """N readings of several files in the order of time; rows of the same time in the order given."""

    names: list[str]
    series: Ints  # (N,) index into the names
    timestamp: Ints  # (N,) epoch ms
    value: Floats  # (N, F)

    def __len__(self) -> int:
        return len(self.timestamp)


def merge(histories: Sequence[history.History]) -> Recording:
    """Put histories together; a series may go on from one to the next."""
    names = list(dict.fromkeys(name for one in histories for name in one.series))
    index = {name: i for i, name in enumerate(names)}
    series = np.array([index[name] for one in histories for name in one.series], np.int64)
    timestamp = np.concatenate([one.timestamp for one in histories])
    value = np.concatenate([one.value for one in histories])
    order = np.argsort(timestamp, kind="stable")
    return Recording(names, series[order], timestamp[order], value[order])


def record(settings: Settings, files: Sequence[Path], time: str, values: Sequence[str], key: str | None) -> Recording:
    """Read `files` as readings that a worker with these settings takes in. Raises `DataError`."""
    fields = settings.input.values
    if len(values) != len(fields):
        raise DataError(
            f"{len(values)} value columns ({', '.join(values)}) can't be sent as the {len(fields)} fields of "
            f"input.values ({', '.join(fields)}); set input.values to one name for each column, for the worker too"
        )
    return merge([history.read(file, time, values, key) for file in files])


async def replay(
    settings: Settings,
    recording: Recording,
    speed: float | None = None,
    on_sent: Callable[[int], None] = lambda _: None,
) -> int:
    """Send `recording` at `speed` times its own pace, None as fast as Kafka takes it; the number of readings.

    `on_sent` is told how many have been sent so far. Raises `BrokerError`.
    """
    sent, total = 0, len(recording)
    due_s = (recording.timestamp - recording.timestamp[:1]) / 1000 / (speed or np.inf)
    async with Feed(settings, recording.names) as feed:
        begin = clock.monotonic()
        while sent < total:
            passed = clock.monotonic() - begin
            due = min(int(np.searchsorted(due_s, passed, side="right")), sent + SLICE)
            if due == sent:
                await asyncio.sleep(max(due_s[sent] - passed, SLICE_S))
                continue
            await feed.send(recording.series[sent:due], recording.timestamp[sent:due], recording.value[sent:due])
            sent = due
            on_sent(sent)
    return sent
