"""What happens when the group gives partitions to this worker or takes them away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from aiokafka import ConsumerRebalanceListener, TopicPartition

from stream_gru.process.tasks import own
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.fences import Fences
from stream_gru.worker.live import Live, Parts, Spawn
from stream_gru.worker.restoring import hand_over
from stream_gru.worker.side_by_side import named
from stream_gru.worker.taking import Taking
from stream_gru.worker.topic_watch import TopicWatch

log = logging.getLogger(__name__)


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """The rebalance listener. Its callbacks return at once; `Taking` restores in a task for each assignment.

    aiokafka only logs what its callbacks raise: here such an error ends the worker, like that of any other task.
    """

    def __init__(self, parts: Parts, checkpointer: Checkpointer, fences: Fences, spawn: Spawn) -> None:
        """`spawn` starts a task whose error ends the worker."""
        self._parts = parts
        self._checkpointer = checkpointer
        self._fences = fences
        self._spawn = spawn
        self._topics = TopicWatch(parts)
        self._taking = Taking(parts, checkpointer, fences, self._topics, spawn)
        self.outdated = self._taking.outdated
        self._leaving: list[Live] = []
        self._watching: list[asyncio.Task[None]] = []
        settings = parts.settings.kafka
        # No heartbeat is sent during a revocation, so it must end well before the session does.
        self._patience_s = min(settings.rebalance_timeout_s / 2, settings.session_timeout_s * 0.8)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing may be delivered before the seek, so pausing comes first."""
        self._parts.consumer.pause(*assigned)
        assigned = sorted(assigned)
        log.info("assigned: %s", named(assigned))
        with self._fatal():
            self._watching = self._watching or [self._spawn(self._topics.run()), self._spawn(self._retake())]
            self._taking.heard()
            if assigned:
                self._taking.begin(assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Stop intake, then flush what was scored within the time there is, or leave it to the replay."""
        revoked = set(revoked)
        with self._fatal():
            self._fences.doubted -= revoked
            self._taking.give_up(revoked)
            leaving = [live for tp in revoked if (live := self._parts.live.pop(tp, None)) is not None]
            self._leaving += leaving
            try:
                async with asyncio.timeout(self._patience_s):
                    await own(self._checkpointer.checkpoint(lambda: leaving))
            except TimeoutError:
                log.warning(
                    "partitions were revoked before all outputs were acknowledged; their new owner replays them"
                )
            finally:
                await hand_over(self._parts.store, leaving)
                self._leaving = [live for live in self._leaving if live not in leaving]
                for live in leaving:
                    self._parts.release(live)

    def held(self) -> list[Live]:
        """The partitions whose rows are in the arena and may have changed."""
        return [*self._parts.live.values(), *self._leaving]

    def out_of_range(self, tp: TopicPartition) -> None:
        """Kafka has no record at the position (rule R16): take the partition anew, which compares and decides."""
        live = self._parts.live.pop(tp, None)
        if live is not None:
            self._parts.consumer.pause(tp)
            self._taking.begin([tp], self._take_after(live))

    def begin_anew(self) -> None:
        """Another model is served from now on: what is being restored was for the one before."""
        if tps := self._taking.partitions:
            self._taking.begin(tps)

    def close(self) -> None:
        """Give up what is being restored, and take nothing any more."""
        self._taking.close()
        for task in self._watching:
            task.cancel()

    async def _retake(self) -> None:
        """Ask the group about what was fenced, and take it again where it is still ours; never returns."""
        while True:
            await self._fences.news.wait()
            self._fences.news.clear()
            assigned, taking = self._parts.consumer.assignment(), self._taking.partitions
            for tp in sorted(self._fences.doubted & assigned - set(taking)):
                self._taking.begin([tp])

    async def _take_after(self, live: Live) -> None:
        """Flush what there is of a partition first."""
        self._leaving.append(live)
        try:
            await self._checkpointer.checkpoint(lambda: [live])
            await hand_over(self._parts.store, [live])
        finally:
            self._leaving.remove(live)
            self._parts.release(live)
        await self._taking.take([live.tp])

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        """What is raised in here ends the worker."""
        try:
            yield
        except Exception as error:
            self._spawn(_raise(error))


async def _raise(error: Exception) -> None:
    raise error
