"""The connections of a session: what is read, written, asked and committed in Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer

from stream_gru.kafka import aiokafka_options
from stream_gru.kafka.cluster import Cluster
from stream_gru.kafka.commits import Commits
from stream_gru.kafka.publisher import Publisher
from stream_gru.kafka.pulse import Pulse
from stream_gru.process.tasks import put_away
from stream_gru.settings import Kafka, Settings

_FOREVER_MS = 2**31 - 1  # the longest that Kafka can be told
_FETCH_BYTES = 4 << 20  # of one partition in one answer: some large batches of readings
_HEARTBEATS_A_SESSION = 4  # so that one or two may get lost


@dataclass(frozen=True, slots=True)
class Clients:
    """Connected; the consumer has not subscribed to anything yet."""

    cluster: Cluster
    publisher: Publisher
    commits: Commits
    consumer: AIOKafkaConsumer


@asynccontextmanager
async def connected(settings: Settings, pulse: Pulse) -> AsyncIterator[Clients]:
    """Connect, check the topics and our rights, and put all of it away in the end. `pulse` hears what Kafka answers.

    Raises `BrokerError` or what the clients raise.
    """
    kafka = settings.kafka
    closing: list[Callable[[], Awaitable[None]]] = []
    try:
        cluster = await Cluster.connect(kafka)
        closing.append(cluster.close)
        await cluster.check(settings)
        publisher = await Publisher.connect(kafka, pulse.attach)
        closing.append(publisher.close)
        commits = await Commits.connect(kafka, pulse.attach)
        closing.append(commits.close)
        consumer = pulse.attach(_consumer(kafka))
        closing.append(consumer.stop)
        await consumer.start()
        yield Clients(cluster, publisher, commits, consumer)
    finally:
        await put_away(*(close() for close in closing))


def _consumer(kafka: Kafka) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **aiokafka_options(kafka),
        group_id=kafka.group_id,
        group_instance_id=kafka.group_instance_id,
        auto_offset_reset="none",
        enable_auto_commit=False,
        isolation_level="read_committed",
        session_timeout_ms=int(kafka.session_timeout_s * 1000),
        heartbeat_interval_ms=int(kafka.session_timeout_s * 1000 / _HEARTBEATS_A_SESSION),
        rebalance_timeout_ms=int(kafka.rebalance_timeout_s * 1000),
        max_poll_interval_ms=_FOREVER_MS,  # whether the source makes turns is the watchdog's business
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
