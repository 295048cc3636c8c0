"""Forecasts and dead letters -> record batches -> Kafka, one batch being sent while the next one is scored."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

import numpy as np

from stream_gru import dead_letters
from stream_gru.batch import Forecasts, Ints, Level
from stream_gru.codecs import Decoded
from stream_gru.metrics import Metrics
from stream_gru.partition import Batch
from stream_gru.settings import Topics
from stream_gru.worker.intake import Admitted, Polled
from stream_gru.worker.live import Live, Parts, Spawn
from stream_gru.worker.publisher import Publisher


@dataclass(slots=True)
class Messages:
    """Records for one partition of one topic."""

    topic: str
    partition: int
    keys: list[bytes | None]
    values: list[bytes]


@dataclass(slots=True)
class Outgoing:
    """The outputs of one scored batch, and the in-flight batches of the partitions that they answer."""

    messages: list[Messages] = field(default_factory=list)
    batches: list[tuple[Live, Batch]] = field(default_factory=list)
    born: Ints = field(default_factory=lambda: np.empty(0, np.int64))  # Kafka timestamps of the readings answered
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Outbox:
    """Encodes at once, sends in order, and tells the partitions what is acknowledged."""

    def __init__(self, parts: Parts, publisher: Publisher, spawn: Spawn) -> None:
        """`spawn` starts a task whose error ends the worker."""
        self._parts = parts
        self._spawn = spawn
        self._publisher = publisher
        self._queue: asyncio.Queue[Outgoing] = asyncio.Queue()
        self._progress = asyncio.Event()
        self.inflight = 0

    def put(self, polled: Polled, decoded: Decoded, admitted: Admitted, forecasts: Forecasts) -> None:
        """Take the outputs of a scored batch. Not a coroutine: nothing may come between scoring and this."""
        with self._parts.metrics.stage.labels("encode").time():
            outgoing = self._encode(polled, decoded, admitted, forecasts)
        self.inflight += 1
        self._queue.put_nowait(outgoing)

    async def progress(self, timeout_s: float) -> None:
        """Wait until a batch is acknowledged, but no longer than `timeout_s`."""
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._progress.wait(), timeout_s)

    async def run(self) -> None:
        """Send what was put, in order; never returns. Raises what a send raises."""
        while True:
            outgoing = await self._queue.get()
            started = time.perf_counter()
            sent = await asyncio.gather(
                *(self._publisher.send(m.topic, m.partition, m.keys, m.values) for m in outgoing.messages)
            )
            acks = [ack for some in sent for ack in some]
            self._spawn(self._acknowledge(outgoing, acks, started))

    async def _acknowledge(self, outgoing: Outgoing, acks: list[Awaitable[object]], started: float) -> None:
        await asyncio.gather(*acks)
        metrics = self._parts.metrics
        metrics.stage.labels("publish").observe(time.perf_counter() - started)
        metrics.latency.observe(np.maximum(time.time() * 1000 - outgoing.born, 0) / 1000)
        metrics.outputs.inc(len(outgoing.born))
        for live, batch in outgoing.batches:
            live.state.acknowledged(batch)
        self.inflight -= 1
        outgoing.done.set_result(None)
        self._progress.set()

    def _encode(self, polled: Polled, decoded: Decoded, admitted: Admitted, forecasts: Forecasts) -> Outgoing:
        outgoing = Outgoing()
        topics, bundle = self._parts.settings.topics, self._parts.engine.bundle
        count(self._parts.metrics, forecasts)
        for span in polled.spans:
            live = span.live
            batch = live.state.begin(polled.offset[span.start : span.stop], span.crc)
            live.state.stepped(batch)
            outgoing.batches.append((live, batch))
            live.acks.add(outgoing.done)
            outgoing.done.add_done_callback(live.acks.discard)
            a, b = np.searchsorted(admitted.index, (span.start, span.stop))
            muted = live.state.muted(polled.offset[span.start : span.stop])
            level = forecasts.level[a:b]
            index = admitted.index[a:b]
            said = np.flatnonzero((level != Level.COVERED) & ~muted[index - span.start]) + a
            if len(said):
                rows = admitted.index[said]
                some = forecasts.take(said)
                series = [decoded.series[row] for row in rows.tolist()]
                prefix = f"{live.tp.topic}-{live.tp.partition}-"
                ids = [f"{prefix}{offset}" for offset in polled.offset[rows].tolist()]
                values = self._parts.codec.encode(series, decoded.timestamp[rows], ids, bundle.name, some)
                outgoing.messages.append(Messages(topics.forecasts, live.tp.partition, list(series), values))
                told = np.flatnonzero(some.is_anomaly | some.closes).tolist()
                if told:
                    keys: list[bytes | None] = [series[i] for i in told]
                    outgoing.messages.append(
                        Messages(topics.anomalies, live.tp.partition, keys, [values[i] for i in told])
                    )
                outgoing.born = np.concatenate((outgoing.born, polled.timestamp[rows]))
            bad = [row for row in decoded.bad if span.start <= row < span.stop and not muted[row - span.start]]
            if bad:
                outgoing.messages.append(self._dead(live, polled, decoded, sorted(bad), topics))
        return outgoing

    def _dead(self, live: Live, polled: Polled, decoded: Decoded, rows: list[int], topics: Topics) -> Messages:
        keys: list[bytes | None] = []
        values = []
        for row in rows:
            self._parts.metrics.dead_letters.labels(str(decoded.bad[row])).inc()
            key, value = dead_letters.encode(
                decoded.bad[row],
                live.tp.topic,
                live.tp.partition,
                int(polled.offset[row]),
                int(polled.timestamp[row]),
                polled.keys[row],
                polled.payloads[row],
                detail=decoded.detail.get(row, ""),
                max_bytes=self._parts.settings.input.dead_letter_bytes,
            )
            keys.append(key)
            values.append(value)
        return Messages(topics.dead_letters, live.tp.partition, keys, values)


def count(metrics: Metrics, forecasts: Forecasts) -> None:
    """What the batch says, as metrics."""
    levels = np.bincount(forecasts.level, minlength=len(Level))
    metrics.readings.inc(int(levels.sum() - levels[Level.COVERED]))
    for level in Level:
        if level is not Level.COVERED and levels[level]:
            metrics.levels.labels(level.name.lower()).inc(int(levels[level]))
    metrics.anomalies.inc(int(forecasts.is_anomaly.sum()))
    metrics.alerts.inc(int(forecasts.alert.sum()))
