"""Which worker has which partitions, as the group says."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from stream_gru.kafka.cluster import Cluster
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
    async with await Cluster.connect(kafka) as cluster:
        group = await cluster.group(kafka.group_id)
    found = []
    for member in group["members"]:
        name = " at ".join(part for part in (member["client_id"], member["client_host"]) if part) or member["member_id"]
        assigned = member["member_assignment"]
        there = ConsumerProtocolMemberAssignment.decode(assigned).partitions() if assigned else []
        joining = group["state"] != "Stable"
        found.append(Member(name, frozenset(TopicPartition(*tp) for tp in there), joining))
    return found
