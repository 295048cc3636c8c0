"""The data plane: getmany -> decode -> admit -> step -> encode -> publish, and a checkpoint every second or so."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from stream_gru import codecs, stores
from stream_gru.engine import Engine
from stream_gru.errors import BrokerError, StoreUnavailableError
from stream_gru.gates import Histograms
from stream_gru.kafka import aiokafka_options
from stream_gru.metrics import Health, Metrics, Server
from stream_gru.polite import polite
from stream_gru.settings import Settings
from stream_gru.worker.assignment import Assignment
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.cluster import Cluster
from stream_gru.worker.commits import Commits
from stream_gru.worker.control import Control
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.outbox import Outbox
from stream_gru.worker.patience import RETRY_S, Patience
from stream_gru.worker.publisher import Publisher
from stream_gru.worker.source import Source
from stream_gru.worker.watchdog import Watchdog

log = logging.getLogger(__name__)

_FOREVER_MS = 2**31 - 1


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
        self._gates: Histograms | None = None  # where metrics.gates asks for them
        self.control: Control | None = None

    async def stop(self) -> None:
        """Ask `run` to finish the batch in hand, flush, and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Connect, then score until `stop`."""
        # A batch makes thousands of records that are gone after it; looking for cycles among them costs a tenth.
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        self.health.report("assignment", "not connected yet")
        where = self._settings.metrics
        server = Server(where.host, where.port, self.metrics, self.health, self._refresh)
        self._watchdog.start()
        try:
            await self._connected()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            self._watchdog.close()
            server.close()

    # -- life

    async def _connected(self) -> None:
        settings = self._settings
        engine = self._engine()
        store = stores.from_settings(settings.state)
        cluster = publisher = commits = None
        consumer = polite(
            AIOKafkaConsumer(
                **aiokafka_options(settings.kafka),
                group_id=settings.kafka.group_id,
                group_instance_id=settings.kafka.group_instance_id,
                auto_offset_reset="none",
                enable_auto_commit=False,
                isolation_level="read_committed",
                session_timeout_ms=int(settings.kafka.session_timeout_s * 1000),
                heartbeat_interval_ms=int(settings.kafka.session_timeout_s * 1000 / 4),
                rebalance_timeout_ms=int(settings.kafka.rebalance_timeout_s * 1000),
                max_poll_interval_ms=_FOREVER_MS,  # whether the source makes turns is the watchdog's business
                max_partition_fetch_bytes=4 << 20,
            )
        )
        try:
            while not self._stopping.is_set():
                self._watchdog.turn()
                try:
                    for warning in await store.open():
                        log.warning("%s", warning)
                    cluster = cluster or await Cluster.connect(settings.kafka)
                    publisher = publisher or await Publisher.connect(settings.kafka)
                    commits = commits or await Commits.connect(settings.kafka)
                    await self._check_topics(cluster)
                    await consumer.start()
                    break
                except (StoreUnavailableError, BrokerError, KafkaError) as error:
                    log.warning("not started yet: %s", error)
                    self.health.report("assignment", f"not connected: {error}")
                    await asyncio.sleep(RETRY_S)
            else:
                return
            codec = codecs.load(settings.input, engine.steps)
            assert publisher and cluster and commits  # noqa: S101, PT018 - the loop ended by its break
            parts = self._parts = Parts(
                settings, self.metrics, self.health, engine, codec, store, cluster, commits, consumer
            )
            await self._score(parts, publisher)
        finally:
            self.control = self._parts = None
            await consumer.stop()
            for part in (publisher, commits, cluster, store):
                if part is not None:
                    await part.close()

    async def _score(self, parts: Parts, publisher: Publisher) -> None:
        def lives() -> list[Live]:
            return list(parts.live.values())

        async with asyncio.TaskGroup() as tasks:
            outbox = Outbox(parts, publisher, tasks.create_task)
            checkpointer = Checkpointer(
                parts,
                self._patience,
                lambda live: assignment.fenced(live),  # noqa: PLW0108 - each of the two needs the other
            )
            assignment = Assignment(parts, checkpointer, tasks.create_task)
            source = Source(parts, self._watchdog, outbox, checkpointer, assignment)
            self.control = Control(parts, source, lambda: checkpointer.checkpoint(lives), self._patience)
            parts.consumer.subscribe(list(self._settings.topics.readings), listener=assignment)
            sending = tasks.create_task(outbox.run())
            ticking = tasks.create_task(self._tick(parts, lambda: checkpointer.checkpoint(lives)))
            scoring = tasks.create_task(source.run())
            self.started.set()
            await self._stopping.wait()
            source.stop()
            await scoring
            assignment.close()
            ticking.cancel()
            try:
                async with asyncio.timeout(self._settings.kafka.session_timeout_s * 0.8):
                    await checkpointer.checkpoint(lives)
            except TimeoutError:
                log.warning("stopped before all outputs were acknowledged and stored; the next start replays them")
            sending.cancel()

    async def _tick(self, parts: Parts, checkpoint: Callable[[], Awaitable[None]]) -> None:
        """Checkpoints at their interval."""
        while True:
            await asyncio.sleep(self._settings.state.checkpoint_interval_s)
            await checkpoint()

    def _refresh(self) -> None:
        """The gauges as they are at a scrape; on the server's thread, so that they move while everything waits."""
        parts = self._parts
        if parts is None:
            return
        engine, lives, now = parts.engine, list(parts.live.values()), time.monotonic()
        self.metrics.partitions.set(len(lives))
        self.metrics.rows.set(len(engine.arena))
        self.metrics.row_bytes.set(engine.layout.row_bytes)
        self.metrics.device_memory.set(engine.memory)
        self.metrics.checkpoint_age.set(now - min((live.checkpointed for live in lives), default=now))
        if self._gates:
            self.metrics.gates.show(self._gates.read())
        self.metrics.lag.clear()  # also of what is no longer ours
        for live in lives:
            if (end := parts.consumer.highwater(live.tp)) is not None:
                lag = max(0, end - live.state.position)
                self.metrics.lag.labels(live.tp.topic, str(live.tp.partition)).set(lag)

    def _engine(self) -> Engine:
        model = self._settings.model
        engine = Engine(
            model.bundle,
            features=self._settings.input.values,
            capacity=self._settings.state.capacity,
            device=model.device,
            threads=model.threads,
            detector=self._settings.detector,
            horizons=model.horizons,
            gaps=self._settings.gaps,
        )
        engine.bundle.description.context.require(self._settings.input.covariates)
        if self._settings.metrics.gates:
            engine.watch = self._gates = Histograms(engine.bundle.forecaster.network, engine.device)
        self.metrics.model.info({"name": engine.bundle.name, "digest": engine.bundle.digest})
        return engine

    async def _check_topics(self, cluster: Cluster) -> None:
        topics = self._settings.topics
        names = [*topics.readings, topics.forecasts, topics.anomalies, topics.dead_letters]
        found = await cluster.topics(names)
        hint = "create them with `stream-gru topics create`"
        if missing := [name for name in names if name not in found]:
            raise BrokerError(f"there is no topic {', '.join(missing)}; {hint}")
        most = max(found[name].partitions for name in topics.readings)
        for name in (topics.forecasts, topics.anomalies, topics.dead_letters):
            if found[name].partitions < most:
                raise BrokerError(
                    f"topic {name} has {found[name].partitions} partitions and the readings have {most}; {hint}"
                )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a group of tasks; the others were only cancelled, or follow from it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
