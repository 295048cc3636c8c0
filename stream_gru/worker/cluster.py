"""What Kafka itself says of topics, logs and the group: the facts that an assignment is checked against."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from kafka import KafkaAdminClient
from kafka.errors import KafkaError as PythonKafkaError

from stream_gru.errors import BrokerError
from stream_gru.kafka import aiokafka_options, kafka_python_options
from stream_gru.partition import Commit, record_crc
from stream_gru.settings import Kafka, Settings

_NO_ID = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the broker describes it."""

    id: str  # "" where the broker has no topic ids
    partitions: int


class Cluster:
    """Admin clients: aiokafka's for commits with their metadata, kafka-python's for topic ids, which aiokafka lacks."""

    def __init__(self, settings: Kafka, admin: AIOKafkaAdminClient, topics: KafkaAdminClient) -> None:
        self._settings = settings
        self._admin = admin
        self._topics = topics

    @classmethod
    async def connect(cls, settings: Kafka) -> Self:
        """Raises `BrokerError` when no broker answers."""
        admin = AIOKafkaAdminClient(**aiokafka_options(settings))
        try:
            await admin.start()
            return cls(settings, admin, await asyncio.to_thread(KafkaAdminClient, **kafka_python_options(settings)))
        except (KafkaError, PythonKafkaError, OSError) as error:
            await admin.close()
            raise BrokerError(f"no Kafka broker answers at {settings.bootstrap_servers}: {error}") from error

    async def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """The topics that exist, by name. Raises `BrokerError` when the broker does not answer."""
        try:
            described = await asyncio.to_thread(self._topics.describe_topics, list(names))
        except (PythonKafkaError, OSError) as error:
            raise BrokerError(f"Kafka does not describe its topics: {error}") from error
        return {t["name"]: Topic(_topic_id(t), len(t["partitions"])) for t in described if not t["error_code"]}

    async def check(self, settings: Settings) -> None:
        """Raise `BrokerError` unless the topics of `settings` are there, the outputs as wide as the readings."""
        topics = settings.topics
        names = [*topics.readings, topics.forecasts, topics.anomalies, topics.dead_letters]
        found = await self.topics(names)
        hint = "create them with `stream-gru topics create`"
        if missing := [name for name in names if name not in found]:
            raise BrokerError(f"there is no topic {', '.join(missing)}; {hint}")
        most = max(found[name].partitions for name in topics.readings)
        for name in (topics.forecasts, topics.anomalies, topics.dead_letters):
            if found[name].partitions < most:
                raise BrokerError(
                    f"topic {name} has {found[name].partitions} partitions and the readings have {most}; {hint}"
                )

    async def commits(self, group: str, partitions: list[TopicPartition]) -> dict[TopicPartition, Commit]:
        """What `group` has committed, partitions without a commit left out."""
        found = await self._admin.list_consumer_group_offsets(group, partitions=partitions)
        return {tp: Commit(c.offset, c.metadata or "") for tp, c in found.items() if c.offset >= 0}

    async def record_crc(self, partition: TopicPartition, offset: int, timeout_s: float = 5.0) -> int | None:
        """crc32 of key and value of the record at `offset`; None where it is no longer retained."""
        consumer = AIOKafkaConsumer(**aiokafka_options(self._settings), enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign([partition])
            if (await consumer.beginning_offsets([partition]))[partition] > offset:
                return None
            consumer.seek(partition, offset)
            record = await asyncio.wait_for(consumer.getone(), timeout_s)
            return record_crc(record.key, record.value) if record.offset == offset else None
        except TimeoutError:
            return None
        finally:
            await consumer.stop()

    async def close(self) -> None:
        """Disconnect."""
        await self._admin.close()
        await asyncio.to_thread(self._topics.close)


def _topic_id(described: dict[str, Any]) -> str:
    raw = described.get("topic_id") or _NO_ID
    parsed = raw if isinstance(raw, uuid.UUID) else uuid.UUID(str(raw))
    return "" if parsed == _NO_ID else str(parsed)
