"""A Faust app whose agent turns anomalies into alerts.

Its table `firing` holds the runs of `runs.py` in a compacted changelog topic with as many partitions as the anomalies
topic; the agent hands what it gets to `alerter.py`, which writes them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import faust
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from yarl import URL

from stream_gru import kafka
from stream_gru.alerts.alerter import Alerter
from stream_gru.alerts.faust_link import Consumer, FaustLink, FiringTable, Producer
from stream_gru.alerts.link import Record, UnavailableError
from stream_gru.kafka import rights
from stream_gru.kafka.cluster import Cluster
from stream_gru.kafka.names import changelog_topic, group_id
from stream_gru.kafka.options import CLIENT_ID
from stream_gru.kafka.pulse import Pulse
from stream_gru.metrics import Metrics
from stream_gru.process.tasks import LeakedCancellationError, put_away
from stream_gru.settings import Kafka, Settings

log = logging.getLogger(__name__)

BATCH_RECORDS = 500  # anomalies taken in at once: one write of the table for all of them
WITHIN_S = 0.1  # how long to wait for them
_SWEEP_S = 5.0  # between two looks at what fell silent, which is meant to be silent for minutes
_NEVER_S = 1e9
_TAKE_DOWN_S = 8.0  # for all that Faust stops, of which each waits for Kafka in its own way
_LAST_WRITES_S = 5.0  # how long a revocation waits for a write in flight


class App(faust.App):  # type: ignore[misc] # faust has no types
    """Faust's app with the settings it was made from."""

    settings: Settings
    pulse: Pulse
    alerter: Alerter
    finish_writing: Callable[..., Awaitable[None]]
    started_at: float | None = None  # monotonic

    async def take_down(self) -> None:
        """Stop within seconds, whatever Kafka does. It is not awaited as such: parts of Faust ignore cancellation."""
        await put_away(self.stop(), within_s=_TAKE_DOWN_S)
        self.on_partitions_revoked.disconnect(self.finish_writing)  # else Faust's classes keep hold of all this

    async def on_first_start(self) -> None:
        """No folders: Faust would make its data directory here, and the table is in memory."""


def create_app(settings: Settings, metrics: Metrics, partitions: int = 1, pulse: Pulse | None = None) -> App:
    """The app, not started. `partitions` is how many the anomalies topic has; `pulse` hears what Kafka answers."""
    made = App(group_id(settings), **_options(settings, partitions))
    made.settings = settings
    made.pulse = pulse or Pulse(settings.kafka)
    made.transport.Consumer, made.transport.Producer = Consumer, Producer
    anomalies = made.topic(
        settings.topics.anomalies, key_type=bytes, value_type=bytes, value_serializer="raw", allow_empty=True
    )
    firing = made.Table("firing", key_type=bytes, value_type=bytes, partitions=partitions)
    link = FaustLink(made, firing, settings)
    alerter = made.alerter = Alerter(link, metrics, settings.topics.anomalies, settings.alerts.silence_s)

    async def alerts(stream: Any) -> None:
        async for events in stream.noack_take(BATCH_RECORDS, within=WITHIN_S):  # `take` would ack what failed
            async with _crashing(made):
                for record in await alerter.take([_record(event) for event in events]):
                    await stream.ack(record.source)

    async def sweep() -> None:
        async with _crashing(made):
            while not made.should_stop:
                await made.sleep(min(_SWEEP_S, settings.alerts.silence_s / 4))
                try:
                    await alerter.sweep(int(time.time() * 1000))
                except UnavailableError as error:
                    log.warning("alerts: Kafka does not say how long its topics are (%s)", error)

    async def on_recover() -> None:
        """The changelog was read, and nothing is delivered yet."""
        async with _crashing(made):
            await alerter.restore(*link.recovered())

    async def finish_writing(*_: Any, **__: Any) -> None:
        """Let a write in flight end: after this the partition is another worker's."""
        try:
            async with asyncio.timeout(_LAST_WRITES_S), alerter.lock:
                pass
        except TimeoutError:
            log.warning("alerts: a write did not end before its partition was handed over")

    made.agent(anomalies, name="alerts")(alerts)
    made.task(sweep)
    firing.on_recover(on_recover)
    made.finish_writing = finish_writing
    made.on_partitions_revoked.connect(finish_writing)
    return made


async def prepare(settings: Settings) -> int:
    """See that the topics are there and the changelog is as wide as the anomalies topic; returns that width.

    Raises `BrokerError`.
    """
    anomalies, changelog = settings.topics.anomalies, changelog_topic(settings)
    async with await Cluster.connect(settings.kafka) as cluster:
        await cluster.require(rights.alerter(settings))
        found, hidden = await cluster.survey([changelog])
        if found or hidden:
            await cluster.require([rights.Need("topic", changelog, ("READ", "WRITE"))])
    return await _widen(settings, anomalies, changelog)


async def _widen(settings: Settings, anomalies: str, changelog: str) -> int:
    """Make the changelog, or more partitions of it; returns how many there must be."""
    admin = AIOKafkaAdminClient(**kafka.aiokafka_options(settings.kafka))
    with kafka.broker_errors(settings.kafka):
        try:
            await admin.start()
            there = await admin.list_topics()  # to describe one that isn't there creates it on some brokers
            described = await admin.describe_topics([anomalies, *({changelog} & set(there))])
            partitions = {topic["topic"]: topic["partitions"] for topic in described}
            width = len(partitions[anomalies])
            if changelog not in partitions:
                copies = len(partitions[anomalies][0]["replicas"])
                compact = {"cleanup.policy": "compact"}
                answer = await admin.create_topics([NewTopic(changelog, width, copies, topic_configs=compact)])
                _raise_for(answer, TopicAlreadyExistsError)
            elif len(partitions[changelog]) < width:
                _raise_for(await admin.create_partitions({changelog: NewPartitions(width)}))
        finally:
            await admin.close()
    return width


def _options(settings: Settings, partitions: int) -> dict[str, Any]:
    """Our settings in Faust's words."""
    servers = settings.kafka.bootstrap_servers.split(",")
    session_s, request_s = settings.kafka.session_timeout_s, settings.kafka.request_timeout_s
    return {
        "broker": [URL(f"kafka://{server.strip()}") for server in servers],
        "broker_credentials": _credentials(settings.kafka),
        "broker_client_id": CLIENT_ID,
        "broker_session_timeout": session_s,
        "broker_heartbeat_interval": session_s / 3,
        "broker_rebalance_timeout": settings.kafka.rebalance_timeout_s,
        "broker_request_timeout": max(request_s, session_s),  # Faust insists
        "broker_commit_livelock_soft_timeout": _NEVER_S,  # an outage is told by `alerting`, and in fewer words
        "broker_max_poll_interval": 300.0,
        "producer_request_timeout": request_s,
        "producer_compression_type": None if (name := settings.kafka.compression) == "none" else name,
        "consumer_group_instance_id": settings.kafka.group_instance_id,
        "consumer_auto_offset_reset": "earliest",  # of the changelog too, so it can't follow `kafka.start`
        "store": "memory://",
        "table_standby_replicas": 0,
        "topic_partitions": partitions,
        "topic_disable_leader": True,  # one topic less: nothing here needs a leader
        "stream_wait_empty": False,  # on_partitions_revoked waits for what matters
        "web_enabled": False,
        "Table": FiringTable,
    }


def _credentials(settings: Kafka) -> faust.Credentials | None:
    tls = kafka.ssl_context(settings) if settings.security_protocol.endswith("SSL") else None
    if settings.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=settings.password(),
            mechanism=settings.sasl_mechanism,
            ssl_context=tls,
        )
    return faust.SSLCredentials(tls) if tls else None


def _record(event: Any) -> Record:
    message = event.message
    seen = int(message.timestamp * 1000)
    return Record(message.partition, message.offset, seen, event.value, message.generation_id, event)


@asynccontextmanager
async def _crashing(app: App) -> AsyncIterator[None]:
    """Crash the app for an error that nobody expected: Faust would restart the agent and drop what it held."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if (task and task.cancelling()) or app.should_stop:
            raise
        leaked = LeakedCancellationError("a part of Faust or of aiokafka cancelled its own work")
        await app.crash(leaked)
        raise leaked from error
    except Exception as error:
        await app.crash(error)
        raise


def _raise_for(answer: Any, *harmless: type[KafkaError]) -> None:
    for topic, code, message in answer.topic_errors:
        error = for_code(code)
        if code and not issubclass(error, harmless):
            raise error(f"{topic}: {message}" if message else topic)
