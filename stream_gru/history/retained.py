"""What a topic of readings still holds of one series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import murmur2

from stream_gru import codecs
from stream_gru.errors import DataError
from stream_gru.history.files import History
from stream_gru.kafka import tail
from stream_gru.settings import Settings


async def read(
    settings: Settings,
    series: str,
    *,
    topic: str | None = None,
    partition: int | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> History:
    """The retained readings of `series`, in the order of the log, up to what was its end when this began.

    Where the record key names the series, only the partition that Kafka's own clients choose for it is read, unless
    `partition` says otherwise. `tell` hears how many records were read. Raises `BrokerError`, and `DataError` when
    there is nothing of it or, the same key on two partitions being two series, more than one.
    """
    names = [topic] if topic else list(settings.topics.readings)
    by_key = not settings.input.series
    codec, key = codecs.load(settings.input, ()), series.encode()
    found: dict[TopicPartition, list[codecs.Decoded]] = defaultdict(list)
    async with tail.reader(settings, names, from_beginning=True) as consumer:
        await _narrow(consumer, key if by_key else None, partition)
        left = await tail.ends(consumer)
        looked_in = ", ".join(f"{tp.topic}-{tp.partition}" for tp in sorted(consumer.assignment()))
        while left:
            for tp, records in (await consumer.getmany(timeout_ms=tail.POLL_MS)).items():
                before = [r for r in records if r.offset < left.get(tp, 0) and (not by_key or r.key == key)]
                if mine := _decode(codec, before, key):
                    found[tp].append(mine)
                tell(len(records))
            for tp, end in list(left.items()):
                if await consumer.position(tp) >= end:
                    del left[tp]
    if not found:
        raise DataError(
            f"there are no readings of {series!r} in {looked_in}; if its producer has a way of its own to choose "
            "partitions, name one with --partition"
        )
    if len(found) > 1:
        places = ", ".join(f"{tp.topic}-{tp.partition}" for tp in sorted(found))
        raise DataError(f"{series!r} is a series in each of {places}; choose with --topic and --partition")
    (parts,) = found.values()
    features = len(settings.input.values)
    value = np.concatenate([part.value for part in parts])
    timestamp = np.concatenate([part.timestamp for part in parts])
    return History([series] * len(timestamp), timestamp, value[:, :features], value[:, features:])


async def _narrow(consumer: AIOKafkaConsumer, key: bytes | None, partition: int | None) -> None:
    """Read only the one partition of each topic that can hold the series, where it is known."""
    if key is None and partition is None:
        return
    counts: dict[str, int] = defaultdict(int)
    for tp in consumer.assignment():
        counts[tp.topic] += 1
    if partition is not None and (small := [name for name, n in counts.items() if partition >= n]):
        raise DataError(f"there is no partition {partition} of {small[0]}: it has {counts[small[0]]}")
    consumer.assign(
        [
            TopicPartition(name, (murmur2(key) & 0x7FFFFFFF) % n if partition is None else partition)
            for name, n in counts.items()
        ]
    )
    await consumer.seek_to_beginning()


def _decode(codec: codecs.Codec, records: list[Any], series: bytes) -> codecs.Decoded | None:
    """The good readings of `series` among records; None: there are none."""
    if not records:
        return None
    sent = np.fromiter((record.timestamp for record in records), np.int64, len(records))
    decoded = codec.decode([r.key for r in records], [r.value for r in records], sent)
    rows = [row for row in decoded.good(range(len(records))) if decoded.series[row] == series]
    if not rows:
        return None
    return codecs.Decoded([series] * len(rows), decoded.timestamp[rows], decoded.value[rows])
