"""What ties the alerter to Kafka: a Faust app's table, producer and consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted, NotReady, ProducerSendError
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.transport.drivers.aiokafka import Consumer as FaustConsumer
from faust.types import TP

from stream_gru import kafka
from stream_gru.alerter import Record, UnavailableError, unpack_key
from stream_gru.alerts import Alert
from stream_gru.polite import polite
from stream_gru.settings import Settings

_encode = msgspec.json.encode


class _ConsumerThread(AIOKafkaConsumerThread):  # type: ignore[misc] # faust has no types
    def _create_consumer(self, loop: Any) -> Any:
        return polite(super()._create_consumer(loop=loop))


class Consumer(FaustConsumer):  # type: ignore[misc] # faust has no types
    """Faust's, made polite."""

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class FaustLink:
    """An `alerter.Link` over a Faust app and its table."""

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

    def recovered(self) -> tuple[list[tuple[bytes, bytes]], set[int]]:
        """The table's rows and the partitions assigned, for `Alerter.restore`. Forgets the rows of others."""
        assigned = self._assigned()
        rows = self._table.data
        for key in [key for key in rows if unpack_key(key)[0] not in assigned]:
            del rows[key]  # another worker writes it now
        return list(rows.items()), assigned

    async def publish(self, alerts: Sequence[Alert]) -> None:
        with _unavailable():
            await _all([await self._alerts.send(key=a.id.encode(), value=_encode(a), force=True) for a in alerts])

    async def store(self, partition: int, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        # Not `table[key] = value`: that needs an event at hand to know the partition, and can't be awaited.
        send = self._table.changelog_topic.send
        with _unavailable():
            await _all([await send(key=key, value=value, partition=partition, force=True) for key, value in rows])
        for key, value in rows:
            if value is None:
                self._table.data.pop(key, None)
            else:
                self._table.data[key] = value

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
        raise UnavailableError(f"{type(error).__name__}: {error}") from error
