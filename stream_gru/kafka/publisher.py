"""Encoded records -> Kafka, as prebuilt batches. What it hands back completes when every replica in sync has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
)

from stream_gru.errors import BrokerError
from stream_gru.kafka import aiokafka_options
from stream_gru.kafka.polite import polite
from stream_gru.settings import Kafka

log = logging.getLogger(__name__)

# Brokers refuse record batches over message.max.bytes, 1 MiB by default; a topic's own max.message.bytes may be less.
_BATCH_BYTES = 512 << 10
_RECORD_OVERHEAD = 64  # bytes around key and value, more than they ever are
_CLOSE_S = 2.0  # for what is on its way when all ends; what is lost is sent again by a replay
RETRY_S = 1.0  # between two tries with what a topic refuses: it may be reconfigured

Shorten = Callable[[bytes], bytes | None]  # a smaller record that says the same, None: there is none


@dataclass(slots=True, eq=False)
class _Records:
    """Records of one call of `send`; those before `sent` are acknowledged."""

    keys: Sequence[bytes | None]
    values: list[bytes]
    shorten: Shorten | None
    sent: int = 0
    since: float = field(default_factory=time.monotonic)
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # whoever waits is told; where nobody does any more it is no event


class Publisher:
    """An idempotent producer with acks=all, which sends smaller batches where a topic takes no larger ones."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._stuck: dict[TopicPartition, str] = {}
        self._sending: set[asyncio.Task[None]] = set()  # requests on their way
        sender, send = producer._sender, producer._sender._send_produce_req

        async def send_produce_req(*args: Any) -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine runs in one
            self._sending.add(task)
            try:
                await send(*args)
            finally:
                self._sending.discard(task)

        sender._send_produce_req = send_produce_req  # private, but nothing else knows them, and `close` must end them
        self.on_stuck: Callable[[str | None], None] | None = None  # hears why a partition waits; None: none does
        self.limits: dict[str, int] = {}  # by topic: bytes of a batch, where larger ones were refused
        self.refused: dict[str, int] = {}  # by topic: bytes of the smallest record that was refused alone

    @classmethod
    async def connect(cls, settings: Kafka, attach: Callable[[Any], Any] = polite) -> Self:
        """Raises aiokafka's `KafkaError` when no broker answers."""
        publisher = cls(
            AIOKafkaProducer(
                **aiokafka_options(settings),
                acks="all",
                enable_idempotence=True,
                compression_type=None if settings.compression == "none" else settings.compression,
                max_batch_size=_BATCH_BYTES,
            )
        )
        attach(publisher._producer)
        try:
            async with asyncio.timeout(settings.request_timeout_s):  # aiokafka asks for a producer id for ever
                await publisher._producer.start()
        except TimeoutError:
            await publisher.close()
            raise KafkaTimeoutError(f"no producer id within {settings.request_timeout_s:g} s") from None
        except BaseException:
            await publisher.close()
            raise
        return publisher

    @property
    def oldest_unacknowledged_s(self) -> float:
        """How long the oldest records without an acknowledgement have been waiting for it; 0 where there are none."""
        oldest = min((lane.since for lane in self._lanes.values()), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def send(
        self,
        topic: str,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes],
        shorten: Shorten | None = None,
    ) -> asyncio.Future[None]:
        """Queue records of one partition, in order. The future is done when all are acknowledged.

        It raises aiokafka's `KafkaError`, after which the partition takes no more: connect anew. `shorten` makes a
        record that the topic finds too large smaller; one that can't be is tried again and again until the topic takes
        it, where `on_stuck` hears of it, else it is a `BrokerError`.
        """
        records = _Records(keys, list(values), shorten)
        if not values:
            records.done.set_result(None)
            return records.done
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane(self, self._producer, TopicPartition(topic, partition))
        lane.put(records)
        return records.done

    def empty(self, tp: TopicPartition) -> None:
        """Forget the lane of a partition for which nothing waits."""
        del self._lanes[tp.topic, tp.partition]

    def limit(self, topic: str, size: int) -> None:
        """Send batches of `size` bytes at most to `topic` from now on."""
        if topic not in self.limits:
            log.warning(
                "topic %s refuses batches that its max.message.bytes does not allow; it gets smaller ones, which are "
                "slower", topic,
            )  # fmt: skip
        self.limits[topic] = min(size, self.limits.get(topic, size))

    async def stuck(self, tp: TopicPartition, size: int) -> None:
        """A record that can't be made smaller is refused: say so and wait a while. Raises `BrokerError` if nobody
        listens."""
        problem = f"topic {tp.topic} refuses a record of {size} bytes; raise its max.message.bytes"
        if self.on_stuck is None:
            raise BrokerError(problem)
        if tp not in self._stuck:
            log.error("%s; until then its partition %d waits", problem, tp.partition)
        self._stuck[tp] = problem
        self.on_stuck(problem)
        await asyncio.sleep(RETRY_S)

    def sent(self, tp: TopicPartition) -> None:
        """A batch is in."""
        if self._stuck.pop(tp, None) and self.on_stuck is not None:
            self.on_stuck(next(iter(self._stuck.values()), None))

    async def close(self) -> None:
        """Wait a while for what was queued, and disconnect; in 2 s at most, and without an error.

        What is not acknowledged by then fails, and may be in Kafka or not.
        """
        lanes = list(self._lanes.values())
        if lanes:
            await asyncio.wait([lane.task for lane in lanes], timeout=_CLOSE_S / 2)
        for lane in lanes:
            lane.fail(ProducerClosed())
        # aiokafka's own `stop` waits for a broker that is away, and lets out the CancelledError of its tasks.
        producer = self._producer
        producer._closed = True
        tasks: list[asyncio.Task[None]] = [lane.task for lane in lanes] + list(self._sending)
        if producer._sender.sender_task is not None:
            tasks.append(producer._sender.sender_task)
        for task in tasks:
            task.cancel()
        tasks.append(asyncio.create_task(producer.client.close()))
        done, hanging = await asyncio.wait(tasks, timeout=_CLOSE_S / 2)
        for task in hanging:
            task.cancel()
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.debug("a task of the producer ended with %r", error)


class _Lane:
    """One partition's records. The next batch goes out when the one before is in: no other overtakes one that is
    refused, and its sequence numbers can be given to what is sent in its place."""

    def __init__(self, publisher: Publisher, producer: AIOKafkaProducer, tp: TopicPartition) -> None:
        self._publisher = publisher
        self._producer = producer
        self._tp = tp
        self._waiting: deque[_Records] = deque()
        self._error: BaseException | None = None
        self.task = asyncio.create_task(self._run())

    @property
    def since(self) -> float:
        return self._waiting[0].since

    def put(self, records: _Records) -> None:
        if self._error is None:
            self._waiting.append(records)
        else:
            records.fail(self._error)

    def fail(self, error: BaseException) -> None:
        self._error = self._error or error
        for records in self._waiting:
            records.fail(self._error)

    async def _run(self) -> None:
        try:
            while self._waiting:
                records = self._waiting[0]
                while records.sent < len(records.values):
                    await self._send(records)
                if not records.done.done():
                    records.done.set_result(None)
                self._waiting.popleft()
            self._publisher.empty(self._tp)
        except asyncio.CancelledError:
            self.fail(ProducerClosed())
            raise
        except Exception as error:  # whatever it is, it comes out where the acknowledgements are waited for
            self.fail(error)

    async def _send(self, records: _Records) -> None:
        """One batch of `records`; of one that is refused for its size, what is to be done about it."""
        batch, stop = self._batch(records)
        size, numbers = batch.size(), self._producer._txn_manager
        try:
            await (await self._producer.send_batch(batch, self._tp.topic, partition=self._tp.partition))
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            # The broker has not counted these records; aiokafka has.
            numbers.increment_sequence_number(self._tp, records.sent - stop)
            if stop - records.sent > 1:
                self._publisher.limit(self._tp.topic, size // 2)
            elif not self._shorten(records, records.sent):
                await self._publisher.stuck(self._tp, size)
            return
        records.sent = stop
        self._publisher.sent(self._tp)
        if numbers.sequence_number(self._tp) < 0:
            numbers.increment_sequence_number(self._tp, 1 << 31)  # 0 comes after 2^31 - 1; aiokafka goes on below it

    def _batch(self, records: _Records) -> tuple[Any, int]:
        """As many of the records as fit a batch, one at least, and which is the next."""
        topic, at = self._tp.topic, records.sent
        limit, refused = self._publisher.limits.get(topic, _BATCH_BYTES), self._publisher.refused.get(topic)
        now = int(time.time() * 1000)
        batch = self._producer.create_batch()
        append, size = batch.append, batch.size
        while at < len(records.values):
            while refused and len(records.values[at]) >= refused and self._shorten(records, at):
                pass  # what was refused once need not be tried again
            key, value = records.keys[at], records.values[at]
            if at > records.sent and size() + len(key or b"") + len(value) + _RECORD_OVERHEAD > limit:
                break
            if append(timestamp=now, key=key, value=value) is None:
                break
            at += 1
        return batch, at

    def _shorten(self, records: _Records, at: int) -> bool:
        """Make one record smaller, if it can be."""
        value = records.values[at]
        shorter = records.shorten(value) if records.shorten else None
        if shorter is None:
            return False
        refused = self._publisher.refused
        refused[self._tp.topic] = min(len(value), refused.get(self._tp.topic, len(value)))
        records.values[at] = shorter
        return True
