"""Read what workers say: outputs, alerts or dead letters, from now on or from the beginning."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_gru.kafka import aiokafka_options, broker_errors, unpacking
from stream_gru.kafka.cluster import partitions
from stream_gru.settings import Settings

Kind = Literal["forecasts", "anomalies", "alerts", "dead-letters"]
POLL_MS = 200  # for a record to come: how soon a reader sees that it is at the end


def topic_of(settings: Settings, kind: Kind) -> str:
    """The topic that holds `kind`."""
    name: str = getattr(settings.topics, kind.replace("-", "_"))
    return name


@asynccontextmanager
async def reader(settings: Settings, names: Sequence[str], *, from_beginning: bool) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of all partitions of some topics, in no group, at the beginning or the end. Raises `BrokerError`."""
    unpacking.limit(settings.input.max_batch_bytes)
    counts = [await partitions(settings, name, "READ") for name in names]
    consumer = AIOKafkaConsumer(
        **aiokafka_options(settings.kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # where retention has removed records while they were on their way
        isolation_level="read_committed",
        fetch_max_wait_ms=POLL_MS,
    )
    with broker_errors(settings.kafka):
        try:
            await consumer.start()
            consumer.assign([TopicPartition(name, p) for name, n in zip(names, counts, strict=True) for p in range(n)])
            await (consumer.seek_to_beginning() if from_beginning else consumer.seek_to_end())
            yield consumer
        finally:
            await consumer.stop()


async def read(
    settings: Settings,
    kind: Kind,
    *,
    series: str | None = None,
    from_beginning: bool = False,
    follow: bool = True,
) -> AsyncGenerator[list[dict[str, Any]]]:
    """Payloads of `kind` as they come, some at a time, in the order of Kafka's timestamps; `series` picks one.

    Without `follow` it ends at what was the end of the topic when it began. Raises `BrokerError`.
    """
    async with reader(settings, [topic_of(settings, kind)], from_beginning=from_beginning) as consumer:
        left = {} if follow else await ends(consumer)
        while follow or left:
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            records = sorted((r for batch in batches.values() for r in batch), key=lambda r: int(r.timestamp))
            payloads = [payload(r) for r in records if r.value is not None]
            if series is not None:
                payloads = [p for p in payloads if series_of(p) == series]
            if payloads:
                yield payloads
            for partition, end in list(left.items()):
                if await consumer.position(partition) >= end:
                    del left[partition]


def payload(record: Any) -> dict[str, Any]:
    """The JSON object in a record; what is none of ours is shown, not dropped."""
    try:
        return msgspec.json.decode(record.value, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        place = f"{record.topic}-{record.partition}-{record.offset}"
        return {"id": place, "unreadable": record.value.decode("utf-8", errors="replace")}


def series_of(payload: dict[str, Any]) -> object:
    """The series that a record is about; in a dead letter that is the original's key."""
    key = payload.get("key")
    return payload.get("series") if key is None else key.get("data") if isinstance(key, dict) else None


async def ends(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Where each partition ends now, empty ones left out."""
    ends = await consumer.end_offsets(consumer.assignment())
    return {p: end for p, end in ends.items() if await consumer.position(p) < end}
