"""Offsets committed to Kafka, as the group member that the consumer is.

aiokafka's own `commit` answers a refusal by forgetting its member id and joining anew; a broker that still waits for
the old member then holds up the whole group until the rebalance times out. Here a refusal is only reported: a commit is
informational, and the consumer's heartbeat finds out about a rebalance anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest

from stream_gru.kafka import aiokafka_options
from stream_gru.kafka.polite import polite
from stream_gru.protocol.partition import Commit
from stream_gru.settings import Kafka


class Commits:
    """A connection of its own to the group's coordinator."""

    def __init__(self, settings: Kafka, client: AIOKafkaClient) -> None:
        self._group = settings.group_id
        self._client = client
        self._coordinator: int | None = None

    @classmethod
    async def connect(cls, settings: Kafka, attach: Callable[[Any], Any] = polite) -> Self:
        """`attach` gives the client its manners. Raises aiokafka's `KafkaError` when no broker answers."""
        client = attach(AIOKafkaClient(**aiokafka_options(settings)))
        try:
            await client.bootstrap()
        except KafkaError:
            await client.close()
            raise
        return cls(settings, client)

    async def commit(self, consumer: AIOKafkaConsumer, commits: Mapping[TopicPartition, Commit]) -> None:
        """Commit as `consumer`. Raises aiokafka's `KafkaError`, also where the group has moved on."""
        member = consumer._coordinator  # private, but all else that knows the member's id and generation is too
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for tp, commit in commits.items():
            topics.setdefault(tp.topic, []).append((tp.partition, commit.offset, commit.metadata))
        request = OffsetCommitRequest(
            self._group,
            member.generation,
            member.member_id,
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            [*topics.items()],
        )
        try:
            if self._coordinator is None:
                self._coordinator = await self._client.coordinator_lookup(CoordinationType.GROUP, self._group)
            response = await self._client.send(self._coordinator, request)
        except KafkaError:
            self._coordinator = None
            raise
        for topic, partitions in response.topics:
            for partition, code in partitions:
                if code:
                    self._coordinator = None
                    raise for_code(code)(f"{topic}-{partition}")

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()
