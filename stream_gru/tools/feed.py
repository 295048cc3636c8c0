"""Readings into Kafka, fast: whole arrays at once, every series in the partition that its key has for any client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

import numpy as np
from aiokafka.partitioner import murmur2

from stream_gru import codecs
from stream_gru.columns import Floats, Ints
from stream_gru.kafka import broker_errors
from stream_gru.kafka.cluster import partitions
from stream_gru.kafka.publisher import Publisher
from stream_gru.settings import Settings

MAX_UNACKNOWLEDGED = 8  # calls of `send`; more would only take memory


class Feed:
    """Sends the readings of a fixed list of series to the first topic of readings; an async context manager.

    Raises `BrokerError` when Kafka or the topic is not there, or as soon as a record was refused.
    """

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        self._settings = settings
        self._topic = settings.topics.readings[0]
        self._codec = codecs.load(settings.input, horizons=())
        self._keys = np.array([name.encode() for name in names], dtype=object)
        self._partition: Ints = np.empty(0, np.int64)
        self._pending: deque[asyncio.Future[list[None]]] = deque()
        self.sent = 0

    async def __aenter__(self) -> Self:
        count = await partitions(self._settings, self._topic, "WRITE")
        # What Kafka's own clients do with a key, so that a series stays in its partition whoever writes it.
        self._partition = np.array([(murmur2(key) & 0x7FFFFFFF) % count for key in self._keys.tolist()], np.int64)
        with broker_errors(self._settings.kafka):
            self._publisher = await Publisher.connect(self._settings.kafka)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            await self._publisher.close()
            for acks in self._pending:  # an error is on its way already; these have nothing to add
                acks.cancel()

    async def send(self, series: Ints, timestamp: Ints, value: Floats) -> None:
        """Queue N readings: (N,) indices into the names, (N,) epoch ms, (N, F) values, NaN = none."""
        if not len(series):
            return
        keys = self._keys[series]
        payloads = np.array(self._codec.encode_readings(keys.tolist(), timestamp, value), dtype=object)
        partition = self._partition[series]
        acks = []
        with broker_errors(self._settings.kafka):
            for p in np.unique(partition).tolist():
                rows = np.flatnonzero(partition == p)
                acks.append(self._publisher.send(self._topic, p, keys[rows].tolist(), payloads[rows].tolist()))
        self._pending.append(asyncio.gather(*acks))
        self.sent += len(series)
        while self._pending and (len(self._pending) > MAX_UNACKNOWLEDGED or self._pending[0].done()):
            await self._acknowledged()

    async def flush(self) -> None:
        """Wait until Kafka has acknowledged everything."""
        while self._pending:
            await self._acknowledged()

    async def _acknowledged(self) -> None:
        with broker_errors(self._settings.kafka):
            await self._pending.popleft()
