"""Which worker has which partitions, as the group says."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from stream_gru.kafka import aiokafka_options, broker_errors
from stream_gru.settings import Kafka


@dataclass(frozen=True, slots=True)
class Member:
    """A worker of the group."""

    name: str  # its client id, its host, and its instance id if it has one
    partitions: frozenset[TopicPartition]
    joining: bool  # while the group shares its partitions out, nobody knows who gets which

    def may_have(self, tp: TopicPartition) -> bool:
        """Whether it has the partition, or is about to be given it."""
        return self.joining or tp in self.partitions


async def members(kafka: Kafka) -> list[Member]:
    """Those of the configured group; none where there is no such group. Raises `BrokerError`."""
    admin = AIOKafkaAdminClient(**aiokafka_options(kafka))
    with broker_errors(kafka):
        try:
            await admin.start()
            described = await admin.describe_consumer_groups([kafka.group_id])
        finally:
            await admin.close()
    found = []
    for answer in described:
        for _code, _group, state, _kind, _protocol, its, *_ in answer.groups:
            for member_id, *rest, _metadata, assigned in its:
                name = " at ".join(part for part in rest[-2:] if part) or member_id
                there = ConsumerProtocolMemberAssignment.decode(assigned).partitions() if assigned else []
                found.append(Member(name, frozenset(TopicPartition(*tp) for tp in there), state != "Stable"))
    return found
