"""Readings as payloads, and putting records into topics."""

from __future__ import annotations

import json
import time

from aiokafka import AIOKafkaProducer

from stream_gru.settings import Settings

NOW = int(time.time() * 1000)  # older records would be gone by retention at once


def reading(value: object, timestamp: object = NOW, **more: object) -> bytes:
    return json.dumps({"timestamp": timestamp, "value": value, **more}).encode()


async def put(settings: Settings, topic: str, messages: list[tuple[bytes | None, bytes]]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        for key, value in messages:
            await producer.send_and_wait(topic, value, key)
