"""Forecasts and dead letters -> record batches -> Kafka, one batch being sent while the next one is scored."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field

import numpy as np
from aiokafka import TopicPartition

from stream_gru.codecs import Decoded
from stream_gru.columns import Forecasts, Ints, Level
from stream_gru.kafka.publisher import Publisher, Shorten
from stream_gru.metrics import Metrics
from stream_gru.protocol.partition import Batch
from stream_gru.records import dead_letters
from stream_gru.records.dead_letters import Reason
from stream_gru.settings import Topics
from stream_gru.worker.intake import Admitted, Polled
from stream_gru.worker.live import Live, Parts, Spawn

log = logging.getLogger(__name__)

PART = "outputs"  # of what /ready says


@dataclass(slots=True)
class Messages:
    """Records for one partition of one topic."""

    topic: str
    partition: int
    keys: list[bytes | None]
    values: list[bytes]
    shorten: Shorten | None = None  # makes one that is too large for its topic smaller


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
        publisher.on_stuck = self._stuck
        parts.health.parts.pop(PART, None)
        self._told: set[tuple[TopicPartition, Reason]] = set()
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
            async with asyncio.timeout(timeout_s):
                await self._progress.wait()

    async def run(self) -> None:
        """Send what was put, in order; never returns."""
        while True:
            outgoing = await self._queue.get()
            started = time.perf_counter()
            acks = [self._publisher.send(m.topic, m.partition, m.keys, m.values, m.shorten) for m in outgoing.messages]
            self._spawn(self._acknowledge(outgoing, acks, started))

    async def _acknowledge(self, outgoing: Outgoing, acks: list[asyncio.Future[None]], started: float) -> None:
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

    def _stuck(self, problem: str | None) -> None:
        self._parts.health.report(PART, problem)
        if problem is not None:
            self._parts.metrics.writer_errors.labels("kafka").inc()

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
            reason, detail = decoded.bad[row], decoded.detail.get(row, "")
            self._parts.metrics.dead_letters.labels(str(reason)).inc()
            offset = int(polled.offset[row])
            batch = polled.unreadable.get(row)
            if batch is not None:
                self._tell(live, reason, detail)
            key, value = dead_letters.encode(
                reason,
                live.tp.topic,
                live.tp.partition,
                batch.first if batch else offset,
                int(polled.timestamp[row]),
                polled.keys[row],
                polled.payloads[row],
                detail=detail,
                last_offset=offset if batch else None,
                max_bytes=self._parts.settings.input.dead_letter_bytes,
            )
            keys.append(key)
            values.append(value)
        return Messages(topics.dead_letters, live.tp.partition, keys, values, dead_letters.shorten)

    def _tell(self, live: Live, reason: Reason, detail: str) -> None:
        """Aloud the first time; whoever sends such batches may send many, and the metric counts them all."""
        if (live.tp, reason) not in self._told:
            self._told.add((live.tp, reason))
            log.error(
                "%s: %s; they are one dead letter, and later ones of the partition are only counted", live.id, detail
            )


def count(metrics: Metrics, forecasts: Forecasts) -> None:
    """What the batch says, as metrics."""
    levels = np.bincount(forecasts.level, minlength=len(Level))
    metrics.readings.inc(int(levels.sum() - levels[Level.COVERED]))
    for level in Level:
        if level is not Level.COVERED and levels[level]:
            metrics.levels.labels(level.name.lower()).inc(int(levels[level]))
    metrics.anomalies.inc(int(forecasts.is_anomaly.sum()))
    metrics.alerts.inc(int(forecasts.alert.sum()))
