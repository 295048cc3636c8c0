"""A Kafka topic's history: what it retains now, read through the codec of the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stream_gru import codecs
from stream_gru.kafka import tail
from stream_gru.settings import Settings
from stream_gru.training.data.series import SeriesCollection, columns


@dataclass(frozen=True, slots=True)
class TopicProgress:
    """How far the reading has come."""

    records: int
    bad: int  # that a worker would make dead letters of


def read_topic(
    settings: Settings, limit: int | None = None, tell: Callable[[TopicProgress], None] = lambda _: None
) -> tuple[SeriesCollection, TopicProgress]:
    """The series of `topics.readings`, up to what were the ends of its partitions at the start.

    `limit` is how many records are read at most: the newest ones, the same share of each partition. Records that can't
    be decoded are counted and left out. The same key on two partitions is two series, as for a worker. Raises
    `BrokerError`, and `DataError` if there is nothing to learn from.
    """
    return asyncio.run(_read(settings, limit, tell))


async def _read(
    settings: Settings, limit: int | None, tell: Callable[[TopicProgress], None]
) -> tuple[SeriesCollection, TopicProgress]:
    codec = codecs.load(settings.input, ())
    parts: list[tuple[str, codecs.Decoded]] = []
    progress = TopicProgress(0, 0)
    async with tail.reader(settings, settings.topics.readings, from_beginning=True) as consumer:
        left = await tail.ends(consumer)
        if limit is not None:
            retained = {partition: end - await consumer.position(partition) for partition, end in left.items()}
            total = sum(retained.values())
            for partition, size in retained.items():
                consumer.seek(partition, left[partition] - size * min(limit, total) // total)
        while left:
            polled = await consumer.getmany(timeout_ms=tail.POLL_MS)
            for partition, some in polled.items():
                end = left.get(partition, 0)
                mine = [record for record in some if record.offset < end]
                sent = np.fromiter((record.timestamp for record in mine), np.int64, len(mine))
                decoded = codec.decode([r.key for r in mine], [r.value for r in mine], sent)
                parts.append((f"{partition.topic}-{partition.partition}/", decoded))
                progress = TopicProgress(progress.records + len(mine), progress.bad + len(decoded.bad))
                tell(progress)
            for partition, end in list(left.items()):
                if await consumer.position(partition) >= end:
                    del left[partition]
                    consumer.pause(partition)
    return _history(settings, parts), progress


def _history(settings: Settings, parts: list[tuple[str, codecs.Decoded]]) -> SeriesCollection:
    names: list[str] = []
    good = []
    for prefix, decoded in parts:
        rows = decoded.good(range(len(decoded.series)))
        names += [prefix + decoded.series[row].decode() for row in rows]
        good.append((decoded, np.array(rows, np.int64)))
    features = len(settings.input.values)
    value = np.concatenate([np.empty((0, features + len(settings.input.covariates))), *(d.value[r] for d, r in good)])
    timestamp = np.concatenate([np.empty(0, np.int64), *(d.timestamp[r] for d, r in good)])
    return SeriesCollection(
        columns(names, timestamp, value[:, :features], value[:, features:]), settings.input.covariates
    )
