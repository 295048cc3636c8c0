"""Checkpoints: a copy of the changed rows as of one cut -> the store -> a commit in Kafka."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from aiokafka.errors import KafkaError

from stream_gru.arena import Cut
from stream_gru.errors import BrokerError, FencedError
from stream_gru.partition import Checkpoint
from stream_gru.row import as_bytes
from stream_gru.stores import Outcome
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.patience import RETRY_S, Patience

log = logging.getLogger(__name__)


class Checkpointer:
    """Writes checkpoints of live partitions, one cut at a time."""

    def __init__(self, parts: Parts, patience: Patience, fenced: Callable[[Live], None]) -> None:
        self._parts = parts
        self._patience = patience
        self._fenced = fenced
        self._lock = asyncio.Lock()

    async def checkpoint(self, lives: Callable[[], Sequence[Live]]) -> None:
        """Cut and write those partitions that `lives` names once the checkpoint before this one is done.

        A partition without changes writes an empty chunk: its number is the probe of rule R14.
        """
        async with self._lock:
            points = {live: point for live in lives() if live.state.active and (point := live.state.cut())}
            # In the same turn of the event loop as the cut, so between two batches (rule R5).
            cuts = self._parts.engine.arena.cuts([live.handle for live in points])
            topics = await self._topic_ids({live.tp.topic for live in points})
            await asyncio.gather(
                *(self._write(live, point, cuts[live.handle], topics[live.tp.topic])
                  for live, point in points.items())
            )  # fmt: skip

    async def _write(self, live: Live, point: Checkpoint, cut: Cut, topic_id: str) -> None:
        if live.acks:
            await asyncio.wait(set(live.acks))  # rule R6
        started = time.perf_counter()
        metrics, state = self._parts.metrics, live.state
        try:
            writes = state.writes(
                point, cut.series, as_bytes(cut.rows), self._parts.settings.state.chunk_rows, topic_id
            )
        except FencedError:
            return  # released while it waited
        store = self._parts.store
        outcome = await self._patience(lambda: store.write(live.id, writes), lambda: state.owner == live.owner)
        if state.owner != live.owner:
            return
        if outcome is Outcome.FENCED:
            self._fenced(live)
            return
        state.confirmed(point)
        self._parts.engine.arena.confirm(live.handle)
        live.checkpointed = time.monotonic()
        metrics.stage.labels("checkpoint").observe(time.perf_counter() - started)
        metrics.checkpoints.inc()
        metrics.checkpoint_rows.inc(len(cut))
        await self._commit(live)

    async def _commit(self, live: Live) -> None:
        """Tell Kafka. Only informational and the mute mark of a replay (rule R13): a failure costs duplicates."""
        commit = live.state.commit()
        if commit is None:
            return
        with self._parts.metrics.stage.labels("commit").time():
            try:
                await self._parts.commits.commit(self._parts.consumer, {live.tp: commit})
            except KafkaError as error:
                log.info("%s: Kafka did not take the commit of offset %d: %s", live.id, commit.offset, error)
                return
        live.state.committed(commit)

    async def _topic_ids(self, names: set[str]) -> dict[str, str]:
        """Rule R17; a broker that does not answer, and a topic that is gone, are waited for."""
        while True:
            try:
                found = await self._parts.cluster.topics(names)
                if gone := sorted(names - found.keys()):
                    raise BrokerError(f"topic {', '.join(gone)} is gone from Kafka")
            except BrokerError as error:
                log.warning("the checkpoint waits: %s", error)
                self._parts.health.report("topics", str(error))
                self._parts.metrics.writer_errors.labels("kafka").inc()
                await asyncio.sleep(RETRY_S)
            else:
                self._parts.health.report("topics")
                return {name: topic.id for name, topic in found.items()}
