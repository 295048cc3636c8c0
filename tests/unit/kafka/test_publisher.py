"""The publisher's lanes, against a producer that only counts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import TransactionManager

from stream_gru.kafka.publisher import Publisher

TP = TopicPartition("t", 0)


class Counting:
    """Takes batches as a producer and a broker would, and notes the first sequence number and the size of each."""

    def __init__(self) -> None:
        self._txn_manager = TransactionManager(None, 0)
        self._sender = SimpleNamespace(_send_produce_req=None, sender_task=None)
        self.client = SimpleNamespace(close=asyncio.Event().wait)  # never comes back
        self.taken: list[tuple[int, int]] = []
        self.error: Exception | None = None

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(1 << 19, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[None]:
        tp, count = TopicPartition(topic, partition), batch.record_count()
        self.taken.append((self._txn_manager.sequence_number(tp), count))
        self._txn_manager.increment_sequence_number(tp, count)
        future = asyncio.get_running_loop().create_future()
        if self.error:
            future.set_exception(self.error)
        else:
            asyncio.get_running_loop().call_soon(future.set_result, None)
        return future


async def test_sequence_numbers_go_around_as_brokers_expect() -> None:
    producer: Any = Counting()
    producer._txn_manager.increment_sequence_number(TP, 2**31 - 15)
    publisher = Publisher(producer)
    for _ in range(4):
        await publisher.send("t", 0, [None] * 10, [b""] * 10)
    assert producer.taken == [(2**31 - 15, 10), (2**31 - 5, 10), (5, 10), (15, 10)]


async def test_an_error_comes_out_of_what_waits_and_what_comes_after() -> None:
    producer: Any = Counting()
    producer.error = KafkaTimeoutError()
    publisher = Publisher(producer)
    futures = [publisher.send("t", 0, [None], [b""]) for _ in range(3)]
    for future in [*futures, publisher.send("t", 0, [None], [b""])]:
        with pytest.raises(KafkaTimeoutError):
            await future
    assert len(producer.taken) == 1, "nothing goes out behind what may be missing"


async def test_nothing_to_send_is_sent() -> None:
    publisher = Publisher(producer := Counting())
    await publisher.send("t", 0, [], [])
    assert producer.taken == []
    assert publisher.oldest_unacknowledged_s == 0.0


async def test_it_closes_even_where_the_client_does_not() -> None:
    async with asyncio.timeout(5):
        await Publisher(Counting()).close()
