"""Taking one partition, the fence and then its rows into the arena; and handing partitions over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass

from aiokafka import TopicPartition

from stream_gru.errors import StoreError
from stream_gru.kafka.cluster import KafkaTopic
from stream_gru.protocol import guard
from stream_gru.protocol.partition import Opening, Partition, Policy, Start
from stream_gru.stores import Assigned, Identity, PartitionId, Store
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.side_by_side import side_by_side

log = logging.getLogger(__name__)

_HAND_OVER_S = 1.0  # a revocation, or the end of the process, waits for it


@dataclass(slots=True)
class Claimed:
    """A partition behind its fence: what the store and Kafka say of it is valid from here on (rule R10)."""

    tp: TopicPartition
    state: Partition
    owner: str
    assigned: Assigned


class Restoring:
    """What is done for each partition of an assignment; in which order, and again when it fails, `taking` knows."""

    def __init__(self, parts: Parts, checkpointer: Checkpointer) -> None:
        self._parts = parts
        self._checkpointer = checkpointer

    async def claim(self, tp: TopicPartition, topic: KafkaTopic) -> Claimed:
        """The fence."""
        parts, settings = self._parts, self._parts.settings
        state = Partition(
            PartitionId(settings.kafka.group_id, tp.topic, tp.partition),
            Policy(settings.kafka.start, settings.state.on_state_lost, settings.state.on_gap),
        )
        identity = parts.identity(Identity(topic.id, topic.partitions, settings.state.buckets, "", ""))
        owner = state.claim(identity)
        return Claimed(tp, state, owner, await parts.store.assign(state.id, owner, identity))

    async def restore(self, one: Claimed, opening: Opening, log_end: int) -> Live:
        """The partition with its rows, or with as many as leave room to work."""
        parts, state = self._parts, one.state
        if opening.checks:
            crcs = {check.offset: await parts.cluster.record_crc(one.tp, check.offset) for check in opening.checks}
            state.verify(one.owner, crcs)
        self._tell(state, opening)
        handle = parts.free_handle()
        parts.engine.arena.open(handle)
        live = Live(one.tp, state.id, state, one.owner, handle, one.assigned.rows, True, time.monotonic())
        live.guard = guard.after(one.assigned.reading, state.position)
        live.calm = 0 if guard.handed_over(one.assigned.reading) else log_end
        try:
            if opening.adopts:
                log.warning("%s: its rows are of a model that a reload replaced; its series start afresh", live.id)
                await self._checkpointer.adopt(live)
            else:
                await self._fill(live)
        except BaseException:
            parts.release(live)
            raise
        return live

    async def _fill(self, live: Live) -> None:
        arena, settings = self._parts.engine.arena, self._parts.settings
        spare = min(2 * settings.worker.max_batch, arena.capacity // 2)
        async for rows in self._parts.store.restore(live.id, live.owner, live.state.confirmed_seq):
            if arena.capacity - len(arena) < len(rows) + spare:
                live.complete = False
                return
            # HSCAN may return a field twice; rows do not change while the partition is being restored.
            known = dict(rows)
            fresh = [key for key, slot in zip(known, arena.lookup(live.handle, list(known)), strict=True) if slot < 0]
            arena.insert(live.handle, fresh, [known[key] for key in fresh])

    def _tell(self, state: Partition, opening: Opening) -> None:
        log.debug("%s: %s at offset %d", state.id, opening.start.value, opening.position)
        if opening.start is Start.LOST:
            self._parts.metrics.lost.inc()
            log.error(
                "%s: state lost: the group has a commit but the store has no state; rebuilding from offset %d, "
                "without publishing below %s", state.id, opening.position, opening.mute_below,
            )  # fmt: skip
        if opening.gap is not None:
            self._parts.metrics.gaps.inc()
            log.error(
                "%s: gap: records [%d, %d) are gone from Kafka and were never scored",
                state.id, opening.gap.start, opening.gap.end,
            )  # fmt: skip


async def hand_over(store: Store, leaving: Collection[Live]) -> None:
    """Tell the store that these partitions' owner ends as it should (rule R21). Quick, or not at all.

    Nothing is told of a partition whose last batch ended within its step: what was in it may be what ended the owner.
    """

    async def tell(live: Live) -> None:
        if live.held and not live.state.torn:
            await store.mark(live.id, live.owner, live.guard.left(live.state.stored or 0))

    try:
        async with asyncio.timeout(_HAND_OVER_S):
            await side_by_side(leaving, tell)
    except (StoreError, TimeoutError) as error:
        log.info("the store was not told that partitions were handed over: %s", error)
