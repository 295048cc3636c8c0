"""What is in a topic, to its end as of now."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_gru.kafka import aiokafka_options
from stream_gru.kafka.cluster import Cluster
from stream_gru.settings import Settings

_SILENT_S = 30.0  # how long a broker may take to go on with a read


async def each(settings: Settings, *of: str | TopicPartition) -> AsyncIterator[Any]:
    """Every record of topics or partitions that is there now. Raises when the broker stops delivering."""
    consumer = AIOKafkaConsumer(**aiokafka_options(settings.kafka), auto_offset_reset="earliest")
    await consumer.start()
    try:
        parts = [tp for one in of for tp in ([one] if isinstance(one, TopicPartition) else ())]
        parts += await partitions(settings, [one for one in of if isinstance(one, str)])
        consumer.assign(parts)
        ends = {tp: end for tp, end in (await consumer.end_offsets(parts)).items() if end}
        moved = time.monotonic()
        while ends:
            for tp, some in (await consumer.getmany(timeout_ms=1000)).items():
                moved = time.monotonic()
                for record in some:
                    if record.offset < ends.get(tp, 0):
                        yield record
            ends = {tp: end for tp, end in ends.items() if await consumer.position(tp) < end}
            if time.monotonic() - moved > _SILENT_S:
                raise AssertionError(f"the broker does not deliver what it has: {ends}")
    finally:
        await consumer.stop()


async def read(settings: Settings, *topics: str) -> list[Any]:
    """Every record of `topics` that is there now."""
    return [record async for record in each(settings, *topics)]


async def partitions(settings: Settings, topics: Sequence[str]) -> list[TopicPartition]:
    """All partitions of `topics`."""
    if not topics:
        return []
    cluster = await Cluster.connect(settings.kafka)
    try:
        found = await cluster.topics(topics)
        return [TopicPartition(name, p) for name in topics for p in range(found[name].partitions)]
    finally:
        await cluster.close()
