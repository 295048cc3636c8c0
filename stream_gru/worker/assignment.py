"""What happens when the group gives a partition to this worker or takes it away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from stream_gru.errors import BrokerError, FencedError, StoreUnavailableError
from stream_gru.partition import Opening, Partition, Policy, Start
from stream_gru.stores import Identity, PartitionId
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.live import Live, Parts, Spawn
from stream_gru.worker.patience import RETRY_S

log = logging.getLogger(__name__)


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """The rebalance listener. Its callbacks return at once; restoring happens in a task for each partition."""

    def __init__(self, parts: Parts, checkpointer: Checkpointer, spawn: Spawn) -> None:
        self._parts = parts
        self._checkpointer = checkpointer
        self._spawn = spawn
        self._taking: dict[TopicPartition, asyncio.Task[None]] = {}
        settings = parts.settings.kafka
        # No heartbeat is sent during a revocation, so it must end well before the session does.
        self._patience_s = min(settings.rebalance_timeout_s / 2, settings.session_timeout_s * 0.8)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing may be delivered before the seek, so pausing comes first."""
        self._parts.consumer.pause(*assigned)
        assigned = sorted(assigned)
        log.info("assigned: %s", ", ".join(f"{tp.topic}-{tp.partition}" for tp in assigned) or "nothing")
        if not assigned:
            self._parts.health.report("assignment", None)
        for tp in assigned:
            self._take_soon(tp)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Stop intake, then flush what was scored within the time there is, or leave it to the replay."""
        for tp in revoked:
            if (task := self._taking.pop(tp, None)) is not None:
                task.cancel()
                self._parts.health.parts.pop(_part(tp), None)
        leaving = [live for tp in revoked if (live := self._parts.live.pop(tp, None)) is not None]
        try:
            async with asyncio.timeout(self._patience_s):
                await self._checkpointer.checkpoint(lambda: leaving)
        except TimeoutError:
            log.warning("partitions were revoked before all outputs were acknowledged; their new owner replays them")
        finally:
            for live in leaving:
                self._parts.release(live)

    def fenced(self, live: Live) -> None:
        """Another owner took the partition (rule R11): drop all of it and ask the group whose it is."""
        log.error("%s: fenced: another worker took the partition, or the store went back in time", live.id)
        self._parts.metrics.conflicts.inc()
        self._parts.release(live)
        if live.tp in self._parts.consumer.assignment():
            self._parts.consumer.pause(live.tp)
            self._again(live.tp, self._when_mine(live.tp))

    def close(self) -> None:
        """Give up what is being restored."""
        for task in self._taking.values():
            task.cancel()

    def out_of_range(self, tp: TopicPartition) -> None:
        """Kafka has no record at the position (rule R16): take the partition anew, which compares and decides."""
        live = self._parts.live.pop(tp, None)
        if live is not None:
            self._parts.consumer.pause(tp)
            self._again(tp, self._after_flush(live))

    def _take_soon(self, tp: TopicPartition) -> None:
        self._again(tp, self._take(tp))

    def _again(self, tp: TopicPartition, work: Coroutine[Any, Any, None]) -> None:
        self._parts.health.report(_part(tp), "being restored")
        if (task := self._taking.pop(tp, None)) is not None:
            task.cancel()
        self._taking[tp] = self._spawn(work)

    async def _after_flush(self, live: Live) -> None:
        await self._checkpointer.checkpoint(lambda: [live])
        self._parts.release(live)
        await self._take(live.tp)

    async def _when_mine(self, tp: TopicPartition) -> None:
        """Only a current member may commit, so committing what is committed asks the group."""
        consumer, group = self._parts.consumer, self._parts.settings.kafka.group_id
        try:
            commit = (await self._parts.cluster.commits(group, [tp])).get(tp)
            if commit is None:
                await asyncio.sleep(self._parts.settings.kafka.session_timeout_s)  # a lost member hears of it by then
            else:
                await self._parts.commits.commit(consumer, {tp: commit})
        except (BrokerError, KafkaError) as error:
            log.info("%s-%d is no longer this worker's: %s", tp.topic, tp.partition, error)
            self._parts.health.report(_part(tp), "waiting for the group")
            return
        if tp in consumer.assignment():
            await self._take(tp)

    async def _take(self, tp: TopicPartition) -> None:
        """Own, restore, seek, resume; again with a new owner each time the store or Kafka does not answer (rule R1)."""
        while True:
            try:
                await self._attempt(tp)
                break
            except (StoreUnavailableError, BrokerError, KafkaError, FencedError, TimeoutError) as error:
                log.warning("%s-%d: restoring failed and is tried again: %s", tp.topic, tp.partition, error)
                self._parts.health.report(_part(tp), f"restoring failed: {error}")
                await asyncio.sleep(RETRY_S)
        self._taking.pop(tp, None)
        self._parts.health.parts.pop(_part(tp), None)
        if not self._taking:
            self._parts.health.report("assignment", None)

    async def _attempt(self, tp: TopicPartition) -> None:
        parts, settings = self._parts, self._parts.settings
        started = time.monotonic()
        topic = (await parts.cluster.topics([tp.topic])).get(tp.topic)
        if topic is None:
            raise BrokerError(f"topic {tp.topic} is gone")
        state = Partition(
            PartitionId(settings.kafka.group_id, tp.topic, tp.partition),
            Policy(settings.kafka.start, settings.state.on_state_lost, settings.state.on_gap),
        )
        engine = parts.engine
        identity = Identity(
            topic.id, topic.partitions, settings.state.buckets, engine.bundle.digest, engine.layout.version
        )
        owner = state.claim(identity)
        assigned = await parts.store.assign(state.id, owner, identity)
        commit = (await parts.cluster.commits(settings.kafka.group_id, [tp])).get(tp)
        log_start = (await parts.consumer.beginning_offsets([tp]))[tp]
        log_end = (await parts.consumer.end_offsets([tp]))[tp]
        opening = state.open(owner, assigned, commit, log_start, log_end)
        if opening.checks:
            state.verify(
                owner, {check.offset: await parts.cluster.record_crc(tp, check.offset) for check in opening.checks}
            )
        self._tell(state, opening)
        handle = parts.free_handle()
        engine.arena.open(handle)
        live = Live(tp, state.id, state, owner, handle, assigned.rows, True, time.monotonic())
        try:
            await self._restore(live)
            # Where it begins must be in the store and in Kafka before the first record is taken in (rule R15): else a
            # store that is emptied now would look like a first start.
            while state.owner == owner and not state.settled:
                await self._checkpointer.checkpoint(lambda: [live])
                if not state.settled:
                    await asyncio.sleep(RETRY_S)
            if state.owner != owner:
                raise FencedError(f"{state.id}: fenced while it was restored")
            if tp not in parts.consumer.assignment():
                raise asyncio.CancelledError
        except BaseException:
            parts.release(live)
            raise
        parts.consumer.seek(tp, state.position)
        parts.live[tp] = live
        parts.consumer.resume(tp)
        log.info(
            "%s: %s at offset %d with %d series in %.2f s",
            live.id, opening.start.value, state.position, live.series, time.monotonic() - started,
        )  # fmt: skip

    async def _restore(self, live: Live) -> None:
        """Fill the arena with the partition's rows, or with as many as leave room to work."""
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


def _part(tp: TopicPartition) -> str:
    return f"partition {tp.topic}-{tp.partition}"
