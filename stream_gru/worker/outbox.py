"""Outputs -> Kafka, one batch being sent while the next one is scored; the partitions hear what is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_gru.kafka.publisher import Publisher
from stream_gru.worker.encoder import BatchOutputs
from stream_gru.worker.intake import Begun
from stream_gru.worker.live import Parts, Spawn

HEALTH_PART = "outputs"  # of what /ready says


@dataclass(slots=True)
class Outgoing:
    """The outputs of one scored batch, and the in-flight batches of the partitions that they answer."""

    outputs: BatchOutputs
    begun: Sequence[Begun]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Outbox:
    """Sends in order what was put, and tells the partitions what is acknowledged."""

    def __init__(self, parts: Parts, publisher: Publisher, spawn: Spawn) -> None:
        """`spawn` starts a task whose error ends the worker."""
        self._parts = parts
        self._spawn = spawn
        self._publisher = publisher
        self._queue: asyncio.Queue[Outgoing] = asyncio.Queue()
        self._progress = asyncio.Event()
        publisher.on_stuck = self._stuck
        parts.health.parts.pop(HEALTH_PART, None)
        self.inflight = 0

    def put(self, outputs: BatchOutputs, begun: Sequence[Begun]) -> None:
        """Take the outputs of a scored batch. Not a coroutine: nothing may come between scoring and this."""
        outgoing = Outgoing(outputs, begun)
        for one in begun:
            one.live.acks.add(outgoing.done)
            outgoing.done.add_done_callback(one.live.acks.discard)
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
            acks = [
                self._publisher.send(m.topic, m.partition, m.keys, m.values, m.shorten)
                for m in outgoing.outputs.messages
            ]
            self._spawn(self._acknowledge(outgoing, acks, started))

    async def _acknowledge(self, outgoing: Outgoing, acks: list[asyncio.Future[None]], started: float) -> None:
        await asyncio.gather(*acks)
        metrics, born = self._parts.metrics, outgoing.outputs.born
        metrics.stage.labels("publish").observe(time.perf_counter() - started)
        metrics.latency.observe(np.maximum(time.time() * 1000 - born, 0) / 1000)
        metrics.outputs.inc(len(born))
        for one in outgoing.begun:
            one.live.state.acknowledged(one.batch)
        self.inflight -= 1
        outgoing.done.set_result(None)
        self._progress.set()

    def _stuck(self, problem: str | None) -> None:
        self._parts.health.report(HEALTH_PART, problem)
        if problem is not None:
            self._parts.metrics.writer_errors.labels("kafka").inc()
