"""Whether the topics of readings are still those that were taken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from aiokafka.errors import KafkaError

from stream_gru.errors import BrokerError
from stream_gru.kafka.cluster import KafkaTopic
from stream_gru.protocol.opening import compare
from stream_gru.stores import Identity, PartitionId
from stream_gru.worker.live import Parts

_LOOK_S = 5.0  # between two looks; the client itself looks every five minutes only


class TopicWatch:
    """Looks also while no partition of a topic can be read (rule R17)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._topics: dict[str, KafkaTopic] = {}  # as they were when a partition of them was taken

    def taken(self, topics: Mapping[str, KafkaTopic]) -> None:
        """Partitions of these are taken, as the broker describes them now."""
        for name, topic in topics.items():
            self._topics.setdefault(name, topic)

    async def run(self) -> None:
        """Look now and then; never returns. A topic that is gone is waited for.

        Raises `IdentityError` for one that was made again or got more partitions: nobody reads the new ones meanwhile.
        """
        parts = self._parts
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                there = await parts.cluster.topics(parts.settings.topics.readings)
            except (BrokerError, KafkaError):
                continue  # which others say, and wait for
            gone = sorted(parts.settings.topics.readings - there.keys())
            parts.health.report("topics", f"there is no topic {', '.join(gone)} any more" if gone else None)
            for name, topic in there.items():
                self._compare(name, self._topics.setdefault(name, topic), topic)

    def _compare(self, name: str, was: KafkaTopic, now: KafkaTopic) -> None:
        if (was.id, was.partitions) == (now.id, now.partitions):
            return
        settings = self._parts.settings
        at = PartitionId(settings.kafka.group_id, name, 0)
        identity = self._parts.identity(Identity(was.id, was.partitions, settings.state.buckets, "", ""))
        compare(at, identity, replace(identity, topic_id=now.id, partitions=now.partitions))
