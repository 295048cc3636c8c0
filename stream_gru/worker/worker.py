"""The data plane: getmany -> decode -> admit -> step -> encode -> publish, and a checkpoint every second or so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import torch
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, ProducerFenced

from stream_gru import codecs, stores
from stream_gru.engine.gates import Histograms
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import BrokerError, BrokerRefusedError, CredentialsError, SettingsError, StoreUnavailableError
from stream_gru.kafka import aiokafka_options, diagnose, explain
from stream_gru.kafka.cluster import Cluster
from stream_gru.kafka.commits import Commits
from stream_gru.kafka.polite import Turns
from stream_gru.kafka.publisher import Publisher
from stream_gru.kafka.pulse import SILENT_S, Pulse, Watch
from stream_gru.metrics import Health, Metrics, Server
from stream_gru.models.bundle import Bundle
from stream_gru.process import garbage
from stream_gru.process.tasks import LeakedCancellationError, Tasks, own, put_away
from stream_gru.process.watchdog import Watchdog
from stream_gru.settings import Settings
from stream_gru.worker.assignment import Assignment, hand_over
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.control import Control
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.model import chosen_bundle
from stream_gru.worker.outbox import Outbox
from stream_gru.worker.patience import RETRY_S, Patience
from stream_gru.worker.source import Source

log = logging.getLogger(__name__)

_FOREVER_MS = 2**31 - 1
_LOOK_AT_STORE_S = 5.0
_SETTLED_S = 10.0  # a session that broke sooner is not tried again at once
# What ends a session and not the worker: it connects anew and replays from what is stored.
_PASSING = (KafkaError, BrokerError, CredentialsError, StoreUnavailableError, TimeoutError, LeakedCancellationError)
# What no new connection mends: Kafka lost outputs that it had acknowledged, or somebody else writes as this producer.
_FATAL = (OutOfOrderSequenceNumber, ProducerFenced)


class Worker:
    """Scores the partitions that the group gives it, until stopped. Any error ends `run` with that error."""

    def __init__(self, settings: Settings) -> None:
        settings.require_room()
        self._settings = settings
        self.metrics, self.health = Metrics(), Health()
        self.started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._watchdog = Watchdog(self.health, settings.worker.unready_after_s, settings.worker.exit_after_s)
        self._patience = Patience(self.health, self.metrics)
        self._parts: Parts | None = None  # while it is connected
        self._ever_connected = False
        self._gates: Histograms | None = None  # where metrics.gates asks for them
        self.control: Control | None = None

    async def stop(self) -> None:
        """Ask `run` to finish the batch in hand, flush, and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Score until `stop`; through outages of Kafka and the store. Raises what waiting does not mend."""
        self.health.report("assignment", "not connected yet")
        where = self._settings.metrics
        server = Server(where.host, where.port, self.metrics, self.health, self._refresh)
        self._watchdog.start()
        try:
            await self._live()
        finally:
            self._watchdog.close()
            server.close()

    # -- life

    async def _live(self) -> None:
        """One session after the other until one was asked to end."""
        engine, turns = self._engine(), Turns()
        garbage.settle()
        turning = asyncio.create_task(self._turn())
        aiokafka_options(self._settings.kafka)  # a file that can't be read now is a mistake; later it may be rotated
        store = stores.from_settings(self._settings.state)
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    await own(self._session(engine, store))
                except (Exception, BaseExceptionGroup) as raised:
                    error = _first(raised)
                    if not _passes(error):
                        raise error from None
                    await self._explain(error)
                turns.end("session", time.monotonic() - began > _SETTLED_S)
                await self._pause(turns.wait_s("session"))
        finally:
            turning.cancel()
            await put_away(store.close())

    async def _explain(self, error: BaseException) -> None:
        """Say why there is no session. Raises `BrokerRefusedError` where waiting is no use."""
        kafka = self._settings.kafka
        if isinstance(error, StoreUnavailableError):
            part, cause = "store", str(error)
        else:
            found = error if isinstance(error, BrokerError) else await diagnose(kafka) or explain(error, kafka)
            rotates = kafka.sasl_password_file is not None
            if isinstance(found, BrokerRefusedError) and not (self._ever_connected or rotates):
                raise found
            part, cause = "kafka", str(found)
        self.health.report(part, cause)
        self.health.report("assignment", "not connected")
        log.warning("not connected; trying on: %s", cause)

    async def _pause(self, seconds: float) -> None:
        """Wait for the next attempt, or until it is time to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, RETRY_S)):
                await self._stopping.wait()

    async def _session(self, engine: Stepper, store: stores.Store) -> None:
        """Connect, join the group, and score until `stop` or an error; nothing is kept but the engine and the store."""
        settings = self._settings
        pulse, kafka = Pulse(settings.kafka), settings.kafka
        closing: list[Callable[[], Awaitable[None]]] = []
        parts = None
        try:
            for warning in await store.open():
                log.warning("%s", warning)
            self.health.report("store")
            self._serve(engine, await chosen_bundle(store, kafka.group_id, engine.bundle))
            cluster = await Cluster.connect(kafka)
            closing.append(cluster.close)
            await cluster.check(settings)
            publisher = await Publisher.connect(kafka, pulse.attach)
            closing.append(publisher.close)
            commits = await Commits.connect(kafka, pulse.attach)
            closing.append(commits.close)
            consumer = pulse.attach(
                AIOKafkaConsumer(
                    **aiokafka_options(kafka),
                    group_id=kafka.group_id,
                    group_instance_id=kafka.group_instance_id,
                    auto_offset_reset="none",
                    enable_auto_commit=False,
                    isolation_level="read_committed",
                    session_timeout_ms=int(kafka.session_timeout_s * 1000),
                    heartbeat_interval_ms=int(kafka.session_timeout_s * 1000 / 4),
                    rebalance_timeout_ms=int(kafka.rebalance_timeout_s * 1000),
                    max_poll_interval_ms=_FOREVER_MS,  # whether the source makes turns is the watchdog's business
                    max_partition_fetch_bytes=4 << 20,
                )
            )
            closing.append(consumer.stop)
            await consumer.start()
            self.health.report("kafka")
            self._ever_connected = True
            codec = codecs.load(settings.input, engine.steps)
            parts = self._parts = Parts(
                settings, self.metrics, self.health, engine, codec, store, cluster, commits, consumer
            )
            try:
                await self._score(parts, publisher, pulse)
            except BaseExceptionGroup as group:
                if _passes(_first(group)):  # no record that was being scored is to blame
                    await own(hand_over(store, list(parts.live.values())))
                raise
        finally:
            self.control = self._parts = None
            if parts is not None:
                for live in list(parts.live.values()):
                    parts.release(live)
            await put_away(*(close() for close in closing))

    async def _turn(self) -> None:
        """Connecting may take long without being stuck; the source makes the turns while there is one."""
        while True:
            if self._parts is None:
                self._watchdog.turn()
            await asyncio.sleep(1.0)

    async def _score(self, parts: Parts, publisher: Publisher, pulse: Pulse) -> None:
        def lives() -> list[Live]:
            return list(parts.live.values())

        async with Tasks() as tasks:

            def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
                owned = own(work)
                try:
                    return tasks.create_task(owned)
                except RuntimeError:  # a callback of the consumer's that comes when the session is over: nothing to do
                    owned.close()
                    work.close()
                    return asyncio.create_task(asyncio.sleep(0))

            outbox = Outbox(parts, publisher, spawn)
            checkpointer = Checkpointer(
                parts,
                self._patience,
                lambda live: assignment.fenced(live),  # noqa: PLW0108 - each of the two needs the other
            )
            assignment = Assignment(parts, checkpointer, self._patience, spawn, lambda: control.catch_up())  # noqa: PLW0108
            source = Source(parts, self._watchdog, outbox, checkpointer, assignment)
            self.control = control = Control(parts, source, checkpointer, assignment, self._patience)
            parts.consumer.subscribe(list(self._settings.topics.readings), listener=assignment)
            sending = spawn(outbox.run())
            ticking = spawn(self._tick(parts, lambda: checkpointer.checkpoint(lives)))
            watch = Watch(
                self._settings.kafka,
                pulse,
                self.health,
                more=lambda: self._unsent(publisher),
                check=lambda: parts.cluster.check(self._settings),
            )
            watching = [spawn(watch.run()), spawn(self._only_one(pulse)), spawn(control.follow())]
            scoring = spawn(source.run())
            self.started.set()
            await self._stopping.wait()
            source.stop()
            await scoring
            assignment.close()
            try:
                async with asyncio.timeout(self._settings.kafka.session_timeout_s * 0.8):
                    await ticking  # a checkpoint in flight is finished: cancelled, it would block the one after it
                    await checkpointer.checkpoint(lives)
            except TimeoutError:
                log.warning("stopped before all outputs were acknowledged and stored; the next start replays them")
            await hand_over(parts.store, lives())
            for task in (sending, *watching):
                task.cancel()

    def _serve(self, engine: Stepper, bundle: Bundle) -> None:
        """Let the engine have the group's model, if that is another one."""
        if bundle.digest != engine.bundle.digest:
            bundle.description.context.require(self._settings.input.covariates)
            engine.reload(bundle)
            self.metrics.model.info({"name": bundle.name, "digest": bundle.digest})

    async def _tick(self, parts: Parts, checkpoint: Callable[[], Awaitable[None]]) -> None:
        """Checkpoints at their interval, until `stop`; while there is nothing to write, a look at the store."""
        looked = time.monotonic()
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.state.checkpoint_interval_s):
                    await self._stopping.wait()
            if parts.live:
                await checkpoint()
            elif time.monotonic() - looked > _LOOK_AT_STORE_S:
                await self._patience(parts.store.open, lambda: not parts.live and not self._stopping.is_set())
                looked = time.monotonic()

    def _unsent(self, publisher: Publisher) -> str | None:
        """What readiness says of outputs that Kafka does not acknowledge."""
        age = publisher.oldest_unacknowledged_s
        return f"Kafka has not acknowledged outputs for {age:.0f} s" if age > SILENT_S else None

    async def _only_one(self, pulse: Pulse) -> None:
        """Ends the worker when another process took its place in the group: two would throw each other out for ever."""
        await pulse.replaced.wait()
        name = self._settings.kafka.group_instance_id
        raise SettingsError(
            f"another process joined group {self._settings.kafka.group_id} as kafka.group_instance_id {name} and took "
            "this worker's place; give each worker a name of its own, or none"
        )

    def _refresh(self) -> None:
        """The gauges as they are at a scrape; on the server's thread, so that they move while everything waits."""
        parts = self._parts
        self.metrics.lag.clear()  # also of what is no longer ours
        if parts is None:
            self.metrics.partitions.set(0)
            return
        engine, lives, now = parts.engine, list(parts.live.values()), time.monotonic()
        self.metrics.partitions.set(len(lives))
        self.metrics.rows.set(len(engine.arena))
        self.metrics.row_bytes.set(engine.layout.row_bytes)
        self.metrics.device_memory.set(engine.memory)
        self.metrics.checkpoint_age.set(now - min((live.checkpointed for live in lives), default=now))
        if self._gates:
            self.metrics.gates.show(self._gates.read())
        for live in lives:
            if (end := parts.consumer.highwater(live.tp)) is not None:
                lag = max(0, end - live.state.position)
                self.metrics.lag.labels(live.tp.topic, str(live.tp.partition)).set(lag)

    def _engine(self) -> Stepper:
        torch.set_num_threads(self._settings.model.threads)
        engine = Stepper.of(self._settings)
        engine.bundle.description.context.require(self._settings.input.covariates)
        if self._settings.metrics.gates:
            engine.watch = self._gates = Histograms(engine.bundle.forecaster.network, engine.device)
        self.metrics.model.info({"name": engine.bundle.name, "digest": engine.bundle.digest})
        return engine


def _passes(error: BaseException) -> bool:
    return isinstance(error, _PASSING) and not isinstance(error, _FATAL)


def _first(error: BaseException) -> BaseException:
    """The error that ended a group of tasks; the others were only cancelled, or follow from it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
