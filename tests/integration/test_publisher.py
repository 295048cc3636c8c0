"""The publisher on a real broker: topics that take only small messages, refused sequences, and an end in an outage."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OutOfOrderSequenceNumber, ProducerClosed
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from stream_gru.errors import BrokerError
from stream_gru.kafka import tail
from stream_gru.kafka.publisher import Publisher
from stream_gru.settings import Kafka, Settings
from stream_gru.tools.embedded import KafkaServer, kafka_server
from tests.support.freezing import freeze
from tests.support.raw_batches import CODECS
from tests.support.waiting import eventually

SMALL = 20_000


@pytest.fixture
def small(kafka: KafkaServer) -> Iterator[tuple[Settings, str]]:
    """Settings, and a topic of two partitions that takes messages of 20 kB."""
    name = f"small-{uuid4().hex[:8]}"
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.create_topics({name: {"num_partitions": 2, "configs": {"max.message.bytes": str(SMALL)}}})
    yield Settings(kafka=Kafka(bootstrap_servers=kafka.bootstrap_servers)), name
    admin.close()


def allow(settings: Settings, topic: str, size: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})])
    admin.close()


async def found(settings: Settings, topic: str, partition: int = 0) -> list[bytes]:
    """What is in a partition, in its order."""
    values: list[bytes] = []
    async with tail.reader(settings, [topic], from_beginning=True) as consumer:
        left = await tail.ends(consumer)
        while left:
            for tp, records in (await consumer.getmany(timeout_ms=tail.POLL_MS)).items():
                values += [record.value for record in records if tp.partition == partition]
            left = {tp: end for tp, end in left.items() if await consumer.position(tp) < end}
    return values


def shorten(value: bytes) -> bytes | None:
    return value[: len(value) // 2] if len(value) > 100 else None


@pytest.mark.parametrize("compression", ["none", *CODECS])
async def test_batches_are_cut_to_what_the_topic_takes(small: tuple[Settings, str], compression: Any) -> None:
    settings, topic = small
    noise = random.Random(0)
    values = [b"%06d " % i + noise.randbytes(300) for i in range(3000)]
    publisher = await Publisher.connect(settings.kafka.model_copy(update={"compression": compression}))
    try:
        sent = [
            publisher.send(topic, p, [None] * 1000, values[at : at + 1000]) for at in (0, 1000, 2000) for p in (0, 1)
        ]
        assert publisher.oldest_unacknowledged_s >= 0.0
        await asyncio.gather(*sent)
        assert publisher.oldest_unacknowledged_s == 0.0
        assert SMALL / 4 < publisher.limits[topic] <= SMALL, "learned, so that the next batches fit at once"
    finally:
        await publisher.close()
    for partition in (0, 1):
        assert await found(settings, topic, partition) == values


async def test_a_record_that_is_too_large_is_sent_shorter_and_in_its_place(small: tuple[Settings, str]) -> None:
    settings, topic = small
    values = [b"%04d" % i + b"x" * (50_000 if i % 3 == 1 else 10) for i in range(60)]
    publisher = await Publisher.connect(settings.kafka)
    try:
        await publisher.send(topic, 0, [b"k"] * 60, values, shorten)
    finally:
        await publisher.close()
    there = await found(settings, topic)
    assert [value[:4] for value in there] == [value[:4] for value in values]
    assert all(value.startswith(kept) for value, kept in zip(values, there, strict=True))
    assert {len(kept) for kept in there} == {14, 12_501}


async def test_a_record_that_can_not_be_shorter_names_the_topic(small: tuple[Settings, str]) -> None:
    settings, topic = small
    publisher = await Publisher.connect(settings.kafka)
    try:
        with pytest.raises(BrokerError, match=f"{topic} refuses a record of 30073 bytes; raise its max.message.bytes"):
            await publisher.send(topic, 0, [b"k"], [b"x" * 30_000])
        with pytest.raises(BrokerError):
            await publisher.send(topic, 0, [b"k"], [b"what comes after it has to wait"])
        await publisher.send(topic, 1, [b"k"], [b"another partition has not"])
    finally:
        await publisher.close()
    assert await found(settings, topic) == []


async def test_where_someone_listens_it_waits_until_the_topic_takes_it(small: tuple[Settings, str]) -> None:
    settings, topic = small
    heard: list[str | None] = []
    publisher = await Publisher.connect(settings.kafka)
    publisher.on_stuck = heard.append
    values = [b"before", b"x" * 30_000, b"after"]
    try:
        sent = publisher.send(topic, 0, [None] * 3, values)
        await eventually(lambda: len(heard) > 1, "it says so")
        assert not sent.done()
        assert publisher.oldest_unacknowledged_s > 0.5
        assert heard[0] == f"topic {topic} refuses a record of 30072 bytes; raise its max.message.bytes"
        allow(settings, topic, 100_000)
        await asyncio.wait_for(sent, 20)
        assert heard[-1] is None
    finally:
        await publisher.close()
    assert await found(settings, topic) == values


async def test_row_17_a_sequence_that_is_out_of_order_comes_out_as_that(small: tuple[Settings, str]) -> None:
    settings, topic = small
    publisher = await Publisher.connect(settings.kafka)
    try:
        await publisher.send(topic, 0, [None], [b"first"])
        publisher._producer._txn_manager.increment_sequence_number(TopicPartition(topic, 0), 7)
        began = time.monotonic()
        with pytest.raises(OutOfOrderSequenceNumber):
            await asyncio.wait_for(publisher.send(topic, 0, [None], [b"second"]), 5)
        with pytest.raises(OutOfOrderSequenceNumber):
            await publisher.send(topic, 0, [None], [b"third"])
        assert time.monotonic() - began < 5
    finally:
        await publisher.close()
    assert await found(settings, topic) == [b"first"]


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker that may be taken down, not started; topics are named after what happens to it."""
    server = kafka_server(tmp_path_factory.mktemp("fragile"))
    yield server
    server.kill()


@pytest.mark.parametrize("outage", ["frozen", "killed"])
async def test_it_closes_in_an_outage(outage: str, fragile: KafkaServer) -> None:
    server = fragile.start()
    admin = KafkaAdminClient(bootstrap_servers=server.bootstrap_servers)
    admin.create_topics({outage: {"num_partitions": 3}}, wait_for_metadata=True)
    admin.close()
    before = asyncio.all_tasks()
    publisher = await Publisher.connect(Kafka(bootstrap_servers=server.bootstrap_servers))
    await asyncio.gather(*(publisher.send(outage, p, [None], [b"x"]) for p in range(3)))
    if outage == "killed":
        server.kill()
    else:
        freeze(server)
    try:
        sent = [publisher.send(outage, p, [None] * 2000, [b"y" * 1000] * 2000) for p in range(3)]
        await eventually(lambda: publisher.oldest_unacknowledged_s > 0.5, "the wait")
        began = time.monotonic()
        await publisher.close()
        assert time.monotonic() - began < 2.5
        for future in sent:
            with pytest.raises(ProducerClosed):
                await future
        await publisher.close()
        await eventually(lambda: asyncio.all_tasks() == before, "the end of its tasks")
    finally:
        if outage == "frozen":
            server.send_signal(signal.SIGCONT)


async def test_closing_sends_what_was_queued(small: tuple[Settings, str]) -> None:
    settings, topic = small
    publisher = await Publisher.connect(settings.kafka)
    sent = publisher.send(topic, 0, [None] * 5000, [b"%d" % i for i in range(5000)])
    await publisher.close()
    assert sent.done()
    sent.result()
    assert len(await found(settings, topic)) == 5000
