"""From batches of the anomalies topic to alerts that are published once and never lost, whatever moves the records.

The order is: what covers runs that are dropped; the alerts, acknowledged; the runs and, last, how far was read. A crash
in between repeats an alert under the same id.

What brings the records (Faust) moves them through queues that it empties at a rebalance, and it may commit past records
that were in them. So the stored state says how far each partition was read: what comes again is left out, and what does
not come is fetched.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, groupby, repeat
from operator import attrgetter
from typing import TypeVar

from stream_gru.alerts import table
from stream_gru.alerts.link import AlertLink, Record, UnavailableError
from stream_gru.alerts.runs import Change, Cursor, Place
from stream_gru.alerts.table import Followed
from stream_gru.alerts.waiting import Standstill, Unanswered
from stream_gru.errors import DataError
from stream_gru.metrics import Metrics
from stream_gru.records.output import OutputRecord, decode_output

log = logging.getLogger(__name__)
T = TypeVar("T")

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0)  # between two attempts; then the last one again and again
_FETCH_RECORDS = 500  # at once


class _LostError(Exception):
    """The partition is no longer ours."""


class Alerter:
    """The ledgers of the partitions assigned to this process."""

    def __init__(self, link: AlertLink, metrics: Metrics, topic: str, silence_s: float) -> None:
        self._link = link
        self._metrics = metrics
        self._topic = topic  # the anomalies topic: for what is logged and counted
        self._silence_ms = int(silence_s * 1000)
        self._partitions: dict[int, Followed] = {}  # that are assigned, as the table and the records since then say
        self._fell_back: str | None = None  # a log that ends before what was read of it
        self._standstill = Standstill(topic)
        self._unanswered = Unanswered()
        self.lock = asyncio.Lock()  # held while anything is written: who holds it sees no write in flight

    def problem(self) -> str | None:
        """What Kafka has not done for too long, in words."""
        return self._unanswered.problem() or self._fell_back

    @property
    def has_work(self) -> bool:
        """Whether it has partitions."""
        return bool(self._link.owned(self._link.generation))

    async def restore(
        self, rows: Iterable[tuple[bytes, bytes]], partitions: Iterable[int], overruled: Iterable[bytes] = ()
    ) -> None:
        """Begin with what the table holds for `partitions`, forgetting everything else.

        `overruled` are the keys of which the log holds something else: they are written anew with the first change.
        """
        async with self.lock:
            self._partitions = table.read(rows, partitions, overruled)
            self._standstill.forget()

    async def take(self, records: Sequence[Record]) -> list[Record]:
        """Take records in; returns those that are done with. The others will be delivered again.

        Waits while Kafka is not available, as long as the partition stays ours.
        """
        done: list[Record] = []
        async with self.lock:
            by_partition = sorted(records, key=attrgetter("partition"))  # stable: order within a partition stays
            for partition, group in groupby(by_partition, attrgetter("partition")):
                with suppress(_LostError):
                    await self._take(partition, list(group), done)
        return done

    async def sweep(self, now_ms: int) -> None:
        """Resolve what fell silent, drop what is over, fetch what is not delivered.

        The clock of a partition is the wall's while everything in it was read, else the timestamp of the last record
        read: a backlog that we are working off is not silence. Timestamps are Kafka's own, of the anomalies topic.

        Raises `StalledError` when a partition has had a backlog for a minute and nothing of it was delivered.
        """
        generation = self._link.generation
        await self._begin(self._link.owned(generation))
        begun = {partition for partition, one in self._partitions.items() if one.begun}
        owned = self._link.owned(generation) & begun
        read = {partition: self._partitions[partition].next for partition in owned}
        ends = await self._ends(owned)
        shorter = [p for p in ends if ends[p] < read[p]]
        self._fell_back = self._made_anew(shorter[0], ends, read) if shorter else None
        firing = 0
        async with self.lock:
            self._standstill.look()
            for partition in owned & self._link.owned(generation):
                with suppress(_LostError):
                    await self._sweep(partition, generation, ends[partition], now_ms)
                firing += self._partitions[partition].ledger.firing()
        self._metrics.firing.set(firing)

    async def _sweep(self, partition: int, generation: int, end: int, now_ms: int) -> None:
        """Raises `_LostError` and `StalledError`."""
        one = self._partitions[partition]
        behind = max(0, end - one.next)
        self._metrics.lag.labels(self._topic, str(partition)).set(behind)
        if not behind:
            self._standstill.moved(partition)
        elif self._standstill.waits(partition):
            await self._fetch(partition, generation, end)
            behind = 0
        clock_ms = one.read_up_to if behind else now_ms
        await self._apply(partition, generation, one.ledger.hush(clock_ms, self._silence_ms))

    async def _ends(self, owned: set[int]) -> dict[int, int]:
        """Raises `UnavailableError`."""
        what = f"say where {self._topic} ends"
        if not owned:
            self._unanswered.done(what)
            return {}
        self._unanswered.ask(what)
        try:
            ends = await self._link.ends(owned)
        except UnavailableError as error:
            self._unanswered.refused(what, str(error))
            raise
        self._unanswered.done(what)
        return ends

    def _made_anew(self, partition: int, ends: dict[int, int], read: dict[int, int]) -> str:
        return (
            f"{self._topic}-{partition} ends at {ends[partition]}, but was read up to {read[partition]}: was the topic "
            "made again? Then stop the alerters, delete the topic that ends in -alerts-firing-changelog and start them"
        )

    async def _take(self, partition: int, records: list[Record], done: list[Record]) -> None:
        """Appends to `done`. Raises `_LostError`."""
        generation = self._link.generation
        if partition not in self._partitions:
            return
        self._must_own(partition, generation)
        self._standstill.moved(partition)
        batch: list[Record] = []
        where = f"say where {self._topic} begins"
        await self._patiently(partition, generation, where, partial(self._begin, {partition}))
        following = self._partitions[partition].next
        for record in records:
            if record.generation != generation:
                continue
            if record.position < following:
                done.append(record)
                continue
            if record.position > following:
                await self._read(partition, generation, batch)
                done += batch
                batch = []
                await self._fetch(partition, generation, record.position)
            batch.append(record)
            following = record.position + 1
        await self._read(partition, generation, batch)
        done += batch

    async def _begin(self, partitions: Iterable[int]) -> None:
        """Where the table knows nothing of a partition, it is read from its log's start, and not from the first record
        that is delivered: at a rebalance those before it may have been dropped on their way."""
        unknown = {p for p in partitions if p in self._partitions and not self._partitions[p].begun}
        if unknown:
            for partition, start in (await self._link.starts(unknown)).items():
                one = self._partitions.get(partition)  # a rebalance may have come in between
                if one is not None and not one.begun:
                    one.next, one.unmarked = start, True

    async def _fetch(self, partition: int, generation: int, stop: int) -> None:
        """Read what was not delivered, up to `stop`."""
        one = self._partitions[partition]
        start = one.next
        log.info("%s-%d: [%d, %d) was not delivered and is fetched", self._topic, partition, start, stop)
        for at in range(start, stop, _FETCH_RECORDS):
            until = min(stop, at + _FETCH_RECORDS)
            fetch = partial(self._link.fetch, partition, at, until, generation)
            fetched = await self._patiently(partition, generation, f"deliver records of {self._topic}", fetch)
            if gone := until - at - len(fetched):
                log.warning("%s-%d: %d records of [%d, %d) are gone", self._topic, partition, gone, at, until)
            await self._read(partition, generation, fetched)
            one.next = until

    async def _read(self, partition: int, generation: int, records: list[Record]) -> None:
        """Take in records that follow on what was read."""
        if not records:
            return
        one = self._partitions[partition]
        change = one.ledger.take(entry for r in records if (entry := self._decode(r)) is not None)
        if one.unmarked:
            change.cursor = Cursor(records[0].position)  # from now on the table, not the commit, says where we are
        await self._apply(partition, generation, change)
        one.unmarked, one.next, one.read_up_to = False, records[-1].position + 1, records[-1].seen

    async def _apply(self, partition: int, generation: int, change: Change) -> None:
        """Make a change durable, then take it over."""
        one = self._partitions[partition]

        async def write() -> None:
            if one.overruled:
                await self._link.store(partition, one.anew(partition))
            if change.cursor is not None:
                await self._link.store(partition, [one.row(partition, None, change.cursor)])
            if change.alerts:
                await self._link.publish(change.alerts)
                self._must_own(partition, generation)
            if change.runs:
                rows = [one.row(partition, key, run) for key, run in change.runs.items()]
                if change.read is not None:
                    rows.append(one.row(partition, None, change.read))
                await self._link.store(partition, rows)

        await self._patiently(partition, generation, "acknowledge alerts", write)
        one.overruled.clear()
        one.ledger.apply(change)
        for alert in change.alerts:
            self._metrics.alert_records.labels(alert.status).inc()

    async def _patiently(self, partition: int, generation: int, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """Repeat an action until Kafka is there for it. Raises `_LostError` once the partition is not ours."""
        self._unanswered.ask(what)
        try:
            for delay in chain(_BACKOFF_S, repeat(_BACKOFF_S[-1])):
                self._must_own(partition, generation)
                try:
                    return await action()
                except UnavailableError as error:
                    self._unanswered.refused(what, str(error))
                    log.warning("alerts: Kafka is not available, and is asked again (%s)", error)
                    await asyncio.sleep(delay * random.uniform(0.75, 1.25))
        finally:
            self._unanswered.done(what)
        raise AssertionError("the delays never end")

    def _must_own(self, partition: int, generation: int) -> None:
        if partition not in self._link.owned(generation):
            raise _LostError

    def _decode(self, record: Record) -> tuple[OutputRecord, Place, int, int] | None:
        try:
            output = decode_output(record.value or b"")
            return output, Place.of(output.id), record.seen, record.position
        except (DataError, ValueError) as error:
            # Only where it is: what it holds, or a message that quotes it, has no business in a log.
            where = f"{self._topic}-{record.partition}-{record.position}"
            log.warning("%s is not an output record (%s); skipped", where, type(error).__name__)
            self._metrics.unreadable.labels(self._topic).inc()
            return None
