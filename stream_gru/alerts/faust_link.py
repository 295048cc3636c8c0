"""What ties the alerter to Kafka: a Faust app's table, producer and consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import faust
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerClosed
from faust.exceptions import ConsumerNotStarted, NotReady, ProducerSendError
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.transport.drivers.aiokafka import Consumer as FaustConsumer
from faust.transport.drivers.aiokafka import Producer as FaustProducer
from faust.types import TP
from mode.threads import ServiceThread

from stream_gru import kafka
from stream_gru.alerts.link import Record, UnavailableError
from stream_gru.alerts.runs import Alert
from stream_gru.alerts.table import Epochs, unpack_key
from stream_gru.process.tasks import put_away
from stream_gru.settings import Settings

_GOODBYE_S = 2.0  # for each step of taking an app down
_encode = msgspec.json.encode


class _ConsumerThread(AIOKafkaConsumerThread):  # type: ignore[misc] # faust has no types
    def _create_consumer(self, loop: Any) -> Any:
        return self.app.pulse.attach(super()._create_consumer(loop=loop))

    async def on_thread_stop(self) -> None:
        """Faust's waits as long as Kafka lets its last requests wait."""
        await put_away(super().on_thread_stop(), within_s=_GOODBYE_S)
        if self._consumer is not None:
            await put_away(self._consumer._client.close(), within_s=_GOODBYE_S)

    async def stop(self) -> None:
        """Faust's blocks the event loop, with the data plane on it, until the thread has ended."""
        if self._started.is_set():
            with suppress(RuntimeError):  # the loop of a thread that has crashed is closed
                await super(ServiceThread, self).stop()
            if self._thread is not None:
                await asyncio.to_thread(self._thread.stop)


class Consumer(FaustConsumer):  # type: ignore[misc] # faust has no types
    """Faust's, whose client is watched and which can always be left."""

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class Producer(FaustProducer):  # type: ignore[misc] # faust has no types
    """Faust's, whose client is watched and which can always be left.

    Idempotent: what Kafka did not acknowledge waits until it does, for as long as an outage lasts, and is there once.
    """

    def _settings_extra(self) -> dict[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        return self.app.pulse.attach(super()._new_producer(transactional_id))

    async def flush(self) -> None:
        """Faust's waits for as long as Kafka is away."""
        await put_away(super().flush(), within_s=_GOODBYE_S)

    async def on_stop(self) -> None:
        """What is not acknowledged soon is given up: the next app must not find this one writing beside it."""
        producer = self._producer
        await put_away(super().on_stop(), within_s=_GOODBYE_S)
        if producer is not None:
            await put_away(_give_up(producer), within_s=_GOODBYE_S)


async def _give_up(producer: AIOKafkaProducer) -> None:
    """End a producer without what it still holds."""
    producer._message_accumulator.fail_all(ProducerClosed())
    await producer.client.close()
    await producer._sender.close()


class FiringTable(faust.Table):  # type: ignore[misc] # faust has no types
    """A table that leaves out what an earlier owner wrote after a later one had begun."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.epochs = Epochs()

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """What Faust reads of the changelog after a rebalance."""
        super().apply_changelog_batch(
            [e for e in batch if self.epochs.counts(e.message.partition, e.message.offset, e.key, e.value)]
        )


class FaustLink:
    """An `AlertLink` over a Faust app and its table."""

    def __init__(self, app: Any, table: Any, settings: Settings) -> None:
        self._app = app
        self._table = table
        self._anomalies = settings.topics.anomalies
        self._options = kafka.aiokafka_options(settings.kafka)
        self._timeout_s = settings.kafka.request_timeout_s
        self._alerts = app.topic(settings.topics.alerts, key_type=bytes, value_type=bytes, value_serializer="raw")

    @property
    def generation(self) -> int:
        return int(self._app.consumer_generation_id)

    def owned(self, generation: int) -> set[int]:
        if generation != self.generation or self._app.rebalancing or self._app.should_stop:
            return set()
        return self._assigned()

    def recovered(self) -> tuple[list[tuple[bytes, bytes]], set[int], set[bytes]]:
        """The table's rows, the partitions assigned and what the log says wrongly, for `Alerter.restore`.

        Forgets the rows of others.
        """
        assigned = self._assigned()
        rows = self._table.data
        for key in [key for key in rows if unpack_key(key)[0] not in assigned]:
            del rows[key]  # another worker writes it now
        return list(rows.items()), assigned, set(self._table.epochs.overruled)

    async def publish(self, alerts: Sequence[Alert]) -> None:
        send = self._alerts.send
        with _unavailable():
            await _all(
                [await _hand_over(partial(send, key=a.id.encode(), value=_encode(a), force=True)) for a in alerts]
            )

    async def store(self, partition: int, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        # Not `table[key] = value`: that needs an event at hand to know the partition, and can't be awaited.
        send = self._table.changelog_topic.send
        with _unavailable():
            await _all(
                [await _hand_over(partial(send, key=k, value=v, partition=partition, force=True)) for k, v in rows]
            )
        for key, value in rows:
            if value is None:
                self._table.data.pop(key, None)
            else:
                self._table.data[key] = value

    async def starts(self, partitions: Iterable[int]) -> dict[int, int]:
        with _unavailable():
            async with asyncio.timeout(self._timeout_s):
                found = await self._app.consumer.earliest_offsets(*(TP(self._anomalies, p) for p in partitions))
        return {tp.partition: start for tp, start in found.items()}

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        with _unavailable():
            async with asyncio.timeout(self._timeout_s):
                found = await self._app.consumer.highwaters(*(TP(self._anomalies, p) for p in partitions))
        return {tp.partition: end for tp, end in found.items()}

    async def fetch(self, partition: int, start: int, stop: int, generation: int) -> list[Record]:
        # By a consumer of our own: a seek of Faust's does not reach what it is delivering just then.
        tp = TopicPartition(self._anomalies, partition)
        found: list[Record] = []
        with _unavailable():
            async with (
                asyncio.timeout(self._timeout_s),
                AIOKafkaConsumer(**self._options, enable_auto_commit=False, auto_offset_reset="earliest") as consumer,
            ):
                consumer.assign([tp])
                consumer.seek(tp, start)
                while await consumer.position(tp) < stop:
                    polled = await consumer.getmany(tp, timeout_ms=1000, max_records=stop - start)
                    records = (r for r in polled.get(tp, ()) if r.offset < stop)
                    found += (Record(partition, r.offset, r.timestamp, r.value, generation) for r in records)
        return found

    def _assigned(self) -> set[int]:
        return {tp.partition for tp in self._app.consumer.assignment() if tp.topic == self._anomalies}


async def _hand_over(send: Callable[[], Awaitable[Awaitable[Any]]]) -> Awaitable[Any]:
    """Give the producer a record. While it has no room, it is this record that waits: those before it are in there."""
    while True:
        try:
            return await send()
        except ProducerSendError as error:
            if not isinstance(error.__cause__, KafkaTimeoutError):
                raise


async def _all(pending: Iterable[Awaitable[Any]]) -> None:
    """Wait for every acknowledgement, also when one fails."""
    for result in await asyncio.gather(*pending, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (KafkaError, ProducerSendError, ConsumerNotStarted, NotReady, TimeoutError, OSError) as error:
        cause = error.__cause__ if isinstance(error, ProducerSendError) else error
        if isinstance(cause, KafkaError) and not (cause.retriable or isinstance(cause, KafkaTimeoutError)):
            raise cause from error  # a missing right, or a producer that is out of step: only a new app is of use
        raise UnavailableError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
