"""Checkpoints: a copy of the changed rows as of one cut -> the store -> a commit in Kafka."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from aiokafka.errors import KafkaError

from stream_gru.engine.arena import Cut
from stream_gru.engine.row import as_bytes
from stream_gru.errors import BrokerError, FencedError
from stream_gru.protocol.partition import Checkpoint
from stream_gru.stores import StoreAnswer, Write
from stream_gru.worker.fences import Fences
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.patience import RETRY_S, Patience

log = logging.getLogger(__name__)


class Checkpointer:
    """Writes checkpoints of live partitions, one cut at a time."""

    def __init__(self, parts: Parts, patience: Patience, fences: Fences) -> None:
        self._parts = parts
        self._patience = patience
        self._fences = fences
        self._lock = asyncio.Lock()

    async def checkpoint(self, lives: Callable[[], Sequence[Live]]) -> None:
        """Cut and write those partitions that `lives` names once the checkpoint before this one is done.

        Partitions without changes are probed, all in one go (rule R14).
        """
        async with self._lock:
            named = [live for live in lives() if live.state.active]
            changed = self._parts.engine.arena.changed
            idle = [live for live in named if live.state.idle and live.handle not in changed]
            points = {live: point for live in named if live not in idle and (point := live.state.cut())}
            # In the same turn of the event loop as the cut, so between two batches (rule R5).
            cuts = self._parts.engine.arena.cuts([live.handle for live in points])
            await self._probe(idle)
            if not points:
                return
            topics = await self._topic_ids({live.tp.topic for live in points}, list(points))
            if not topics:
                return
            await asyncio.gather(
                *(self._write(live, point, cuts[live.handle], topics[live.tp.topic])
                  for live, point in points.items())
            )  # fmt: skip
            await self._commit([live for live in points if live.held])

    async def adopt(self, live: Live) -> None:
        """Write the pending reload of a partition: every row dropped, the new identity, the same owner (rule R18)."""
        point, state = live.state.pending, live.state
        if point is None or point.identity is None:
            return  # lost meanwhile
        writes = state.writes(point, (), (), 1, state.identity.topic_id)
        if await self._sent(live, writes):
            state.confirmed(point)
            live.series, live.complete = 0, True

    async def _sent(self, live: Live, writes: Sequence[Write]) -> bool:
        """Whether the store took the writes; it did not where the partition was lost before it answered."""
        outcome = await self._patience(lambda: self._parts.store.write(live.id, writes), lambda: live.held)
        if not live.held:
            return False
        if outcome is StoreAnswer.FENCED:
            self._fences.met(live)
            return False
        return True

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
        if not await self._sent(live, writes):
            return
        state.confirmed(point)
        self._parts.engine.arena.confirm(live.handle)
        live.checkpointed = time.monotonic()
        metrics.stage.labels("checkpoint").observe(time.perf_counter() - started)
        metrics.checkpoints.inc()
        metrics.checkpoint_rows.inc(len(cut))

    async def _probe(self, idle: Sequence[Live]) -> None:
        """Rule R14: is what nothing happened to still ours?"""
        known = [(live.id, live.owner, live.state.confirmed_seq) for live in idle]
        outcomes = await self._patience(
            lambda: self._parts.store.probes(known), lambda: any(live.held for live in idle)
        )
        for live, outcome in zip(idle, outcomes or (), strict=False):
            if not live.held:
                continue
            if outcome is StoreAnswer.FENCED:
                self._fences.met(live)
            else:
                live.checkpointed = time.monotonic()

    async def _commit(self, lives: Sequence[Live]) -> None:
        """Tell Kafka. Only informational and the mute mark of a replay (rule R13): a failure costs duplicates."""
        commits = {live: commit for live in lives if (commit := live.state.commit()) is not None}
        if not commits:
            return
        with self._parts.metrics.stage.labels("commit").time():
            try:
                await self._parts.commits.commit(
                    self._parts.consumer, {live.tp: commit for live, commit in commits.items()}
                )
            except KafkaError as error:
                log.info("Kafka did not take the commits of %d partitions: %s", len(commits), error)
                return
        for live, commit in commits.items():
            if live.held:
                live.state.committed(commit)

    async def _topic_ids(self, names: set[str], lives: Sequence[Live]) -> dict[str, str]:
        """Rule R17; a broker that does not answer, and a topic that is gone, are waited for, while any is ours."""
        while any(live.held for live in lives):
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
        return {}
