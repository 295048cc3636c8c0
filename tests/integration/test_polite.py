"""A client of aiokafka that has lost sight of every broker finds them again."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream_gru.kafka import aiokafka_options
from stream_gru.kafka.polite import client_of, polite
from stream_gru.settings import Settings
from tests.support.waiting import eventually


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


async def test_a_group_whose_leader_was_not_told_of_a_topic_gets_it_all_the_same(settings: Settings) -> None:
    """As by a broker that is just starting: nobody is given a partition, and it stayed so for five minutes."""
    consumer = polite(AIOKafkaConsumer(**aiokafka_options(settings.kafka), group_id=settings.kafka.group_id))
    await consumer.start()
    try:
        consumer.subscribe([settings.topics.commands])
        await eventually(lambda: bool(consumer.assignment()), "it has its partition", 30)
        client, told = client_of(consumer), client_of(consumer).cluster.update_metadata

        def starting(answer: Any) -> None:
            answer.topics = []
            told(answer)

        client.cluster.update_metadata = starting
        await client.force_metadata_update()
        await eventually(lambda: not consumer.assignment(), "it is given nothing", 30)
        client.cluster.update_metadata = told
        await eventually(lambda: bool(consumer.assignment()), "it has its partition again", 30)
    finally:
        await consumer.stop()
