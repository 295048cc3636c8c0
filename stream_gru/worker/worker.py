"""The data plane's life: one session with Kafka and the store after the other, until a stop or an error."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

import torch
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, ProducerFenced

from stream_gru import codecs, stores
from stream_gru.engine.gates import Histograms
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import BrokerError, BrokerRefusedError, CredentialsError, StoreUnavailableError
from stream_gru.kafka import aiokafka_options, diagnose, explain
from stream_gru.kafka.polite import Turns
from stream_gru.kafka.pulse import Pulse
from stream_gru.metrics import Health, Metrics, StatusServer
from stream_gru.models.bundle import Bundle
from stream_gru.process import garbage
from stream_gru.process.tasks import LeakedCancellationError, own, put_away
from stream_gru.process.watchdog import Watchdog
from stream_gru.settings import Settings
from stream_gru.worker.clients import connected
from stream_gru.worker.control import Control
from stream_gru.worker.live import Parts
from stream_gru.worker.model import chosen_bundle
from stream_gru.worker.patience import RETRY_S
from stream_gru.worker.restoring import hand_over
from stream_gru.worker.session import Session

log = logging.getLogger(__name__)

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
        server = StatusServer(where.host, where.port, self.metrics, self.health, self._refresh)
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
        settings, pulse = self._settings, Pulse(self._settings.kafka)
        for warning in await store.open():
            log.warning("%s", warning)
        self.health.report("store")
        self._serve(engine, await chosen_bundle(store, settings.kafka.group_id, engine.bundle))
        async with connected(settings, pulse) as clients:
            self.health.report("kafka")
            self._ever_connected = True
            codec = codecs.load(settings.input, engine.steps)
            parts = Parts(
                settings, self.metrics, self.health, engine, codec, store,
                clients.cluster, clients.commits, clients.consumer,
            )  # fmt: skip
            session = Session(parts, clients.publisher, pulse, self._watchdog, self._stopping)
            self._parts, self.control = parts, session.control
            self.started.set()
            try:
                await session.run()
            except BaseExceptionGroup as group:
                if _passes(_first(group)):  # no record that was being scored is to blame
                    await own(hand_over(store, list(parts.live.values())))
                raise
            finally:
                self.control = self._parts = None
                for live in list(parts.live.values()):
                    parts.release(live)

    async def _turn(self) -> None:
        """Connecting may take long without being stuck; the source makes the turns while there is one."""
        while True:
            if self._parts is None:
                self._watchdog.turn()
            await asyncio.sleep(1.0)

    def _serve(self, engine: Stepper, bundle: Bundle) -> None:
        """Let the engine have the group's model, if that is another one."""
        if bundle.digest != engine.bundle.digest:
            bundle.description.context.require(self._settings.input.covariates)
            engine.reload(bundle)
            self.metrics.model.info({"name": bundle.name, "digest": bundle.digest})

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
