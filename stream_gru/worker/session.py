"""A connected worker: its parts put together, each of which knows only those before it, and run until stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from stream_gru.errors import SettingsError
from stream_gru.kafka.publisher import Publisher
from stream_gru.kafka.pulse import SILENT_S, KafkaWatch, Pulse
from stream_gru.process.tasks import Tasks, own
from stream_gru.process.watchdog import Watchdog
from stream_gru.worker.assignment import Assignment
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.control import Control
from stream_gru.worker.fences import Fences
from stream_gru.worker.intake import Admission
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.outbox import Outbox
from stream_gru.worker.patience import Patience
from stream_gru.worker.restoring import hand_over
from stream_gru.worker.room import Room
from stream_gru.worker.source import ReadingSource

log = logging.getLogger(__name__)

_LOOK_AT_STORE_S = 5.0  # while no checkpoint shows whether it answers
_LAST_CHECKPOINT_SHARE = 0.8  # of the group's session, after which others take what was not stored


class Session:
    """Source -> admission -> step -> outbox -> Kafka, and a checkpoint every second or so."""

    def __init__(
        self, parts: Parts, publisher: Publisher, pulse: Pulse, watchdog: Watchdog, stopping: asyncio.Event
    ) -> None:
        self._parts = parts
        self._publisher = publisher
        self._pulse = pulse
        self._stopping = stopping
        self._tasks = Tasks()
        self._patience = patience = Patience(parts.health, parts.metrics)
        fences = Fences(parts)
        self._checkpointer = checkpointer = Checkpointer(parts, patience, fences)
        self._assignment = assignment = Assignment(parts, checkpointer, fences, self._spawn)
        room = Room(parts, checkpointer, watchdog.turn)
        turning = Patience(parts.health, parts.metrics, watchdog.turn)  # for the source, which the watchdog watches
        admission = Admission(parts, turning, room, fences)
        self._outbox = outbox = Outbox(parts, publisher, self._spawn)
        self._source = source = ReadingSource(parts, watchdog, admission, outbox, assignment)
        self.control = Control(parts, source, checkpointer, assignment, patience)

    async def run(self) -> None:
        """Score until `stopping`, and hand over. Raises what ends a task, in a group."""
        settings, consumer = self._parts.settings, self._parts.consumer
        async with self._tasks:
            consumer.subscribe(list(settings.topics.readings), listener=self._assignment)
            sending = self._spawn(self._outbox.run())
            ticking = self._spawn(self._tick())
            watching = [self._spawn(work) for work in (self._watch(), self._only_one(), self.control.follow())]
            scoring = self._spawn(self._source.run())
            await self._stopping.wait()
            self._source.stop()
            await scoring
            self._assignment.close()
            try:
                async with asyncio.timeout(settings.kafka.session_timeout_s * _LAST_CHECKPOINT_SHARE):
                    await ticking  # a checkpoint in flight is finished: cancelled, it would block the one after it
                    await self._checkpointer.checkpoint(self._lives)
            except TimeoutError:
                log.warning("stopped before all outputs were acknowledged and stored; the next start replays them")
            await hand_over(self._parts.store, self._lives())
            for task in (sending, *watching):
                task.cancel()

    def _lives(self) -> list[Live]:
        return list(self._parts.live.values())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task whose error ends the session."""
        owned = own(work)
        try:
            return self._tasks.create_task(owned)
        except RuntimeError:  # a callback of the consumer's that comes when the session is over: nothing to do
            owned.close()
            work.close()
            return asyncio.create_task(asyncio.sleep(0))

    async def _tick(self) -> None:
        """Checkpoints at their interval, until `stopping`; while there is nothing to write, a look at the store."""
        parts, looked = self._parts, time.monotonic()
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(parts.settings.state.checkpoint_interval_s):
                    await self._stopping.wait()
            if parts.live:
                await self._checkpointer.checkpoint(self._lives)
            elif time.monotonic() - looked > _LOOK_AT_STORE_S:
                await self._patience(parts.store.open, lambda: not parts.live and not self._stopping.is_set())
                looked = time.monotonic()

    async def _watch(self) -> None:
        """Keep readiness true; never returns."""
        parts = self._parts

        async def check() -> None:
            await parts.cluster.check(parts.settings)

        def more() -> str | None:
            return unsent(self._publisher)

        await KafkaWatch(parts.settings.kafka, self._pulse, parts.health, more=more, check=check).run()

    async def _only_one(self) -> None:
        """Ends the worker when another process took its place in the group: two would throw each other out for ever."""
        await self._pulse.replaced.wait()
        kafka = self._parts.settings.kafka
        raise SettingsError(
            f"another process joined group {kafka.group_id} as kafka.group_instance_id {kafka.group_instance_id} and "
            "took this worker's place; give each worker a name of its own, or none"
        )


def unsent(publisher: Publisher) -> str | None:
    """What readiness says of outputs that Kafka does not acknowledge."""
    age = publisher.oldest_unacknowledged_s
    return f"Kafka has not acknowledged outputs for {age:.0f} s" if age > SILENT_S else None
