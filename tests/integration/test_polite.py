"""A client of aiokafka that has lost sight of every broker finds them again."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer

from stream_gru.kafka import aiokafka_options
from stream_gru.kafka.polite import client_of, polite
from stream_gru.settings import Settings


async def test_a_client_that_knows_no_broker_finds_them_again(settings: Settings) -> None:
    """As after a start at a broker that was just starting itself, named none, and went away again."""
    producer = polite(AIOKafkaProducer(**aiokafka_options(settings.kafka)))
    await producer.start()
    try:
        client = client_of(producer)
        client.cluster._brokers = {}
        for connection in list(client._conns.values()):
            connection.close()
        async with asyncio.timeout(20):
            await producer.send_and_wait(settings.topics.commands, b"")
    finally:
        await producer.stop()
