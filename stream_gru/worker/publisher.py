"""Encoded records -> Kafka, as prebuilt batches. What it hands back completes when every replica in sync has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_gru.kafka import aiokafka_options
from stream_gru.polite import polite
from stream_gru.settings import Kafka

# Brokers refuse record batches over message.max.bytes, 1 MiB by default.
_BATCH_BYTES = 512 << 10


class Publisher:
    """An idempotent producer with acks=all."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._waiting: dict[asyncio.Future[object], float] = {}  # since when, monotonic

    @classmethod
    async def connect(cls, settings: Kafka, attach: Callable[[Any], Any] = polite) -> Self:
        """`attach` gives the producer its manners. Raises aiokafka's `KafkaError` when no broker answers."""
        producer = AIOKafkaProducer(
            **aiokafka_options(settings),
            acks="all",
            enable_idempotence=True,
            compression_type=None if settings.compression == "none" else settings.compression,
            max_batch_size=_BATCH_BYTES,
        )
        attach(producer)
        try:
            await producer.start()
        except KafkaError:
            await producer.stop()
            raise
        return cls(producer)

    async def send(
        self, topic: str, partition: int, keys: Sequence[bytes | None], values: Sequence[bytes]
    ) -> list[Awaitable[object]]:
        """Queue records of one partition, in order; one future for each record batch that it took."""
        futures: list[Awaitable[object]] = []
        now = int(time.time() * 1000)
        builder = self._producer.create_batch()
        append = builder.append
        for key, value in zip(keys, values, strict=True):
            if append(timestamp=now, key=key, value=value) is None:
                futures.append(self._sent(await self._producer.send_batch(builder, topic, partition=partition)))
                builder = self._producer.create_batch()
                append = builder.append
                if append(timestamp=now, key=key, value=value) is None:
                    raise ValueError(f"an output record of {len(value)} bytes does not fit a record batch")
        if builder.record_count():
            futures.append(self._sent(await self._producer.send_batch(builder, topic, partition=partition)))
        return futures

    @property
    def oldest_unacknowledged_s(self) -> float:
        """Age of the oldest record batch that Kafka has not acknowledged; 0 where there is none."""
        return time.monotonic() - min(self._waiting.values()) if self._waiting else 0.0

    def _sent(self, ack: asyncio.Future[object]) -> asyncio.Future[object]:
        self._waiting[ack] = time.monotonic()
        ack.add_done_callback(self._waiting.pop)
        return ack

    async def close(self) -> None:
        """Flush and disconnect."""
        await self._producer.stop()
