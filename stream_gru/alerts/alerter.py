"""From batches of the anomalies topic to alerts that are published once and never lost, whatever moves the records.

The order is: what covers runs that are dropped; the alerts, acknowledged; the runs and, last, how far was read. A crash
in between repeats an alert under the same id.

Every row says under which epoch it was written; an owner begins a new one. What an owner that was frozen, or cut off,
still had on its way comes after rows of its successor, and does not count.

What brings the records (Faust) moves them through queues that it empties at a rebalance, and it may commit past records
that were in them. So the stored state says how far each partition was read: what comes again is left out, and what does
not come is fetched.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, repeat
from operator import attrgetter
from typing import Any, Protocol, TypeVar

import msgspec

from stream_gru.alerts.runs import Alert, Change, Cursor, Key, Ledger, Place, Run
from stream_gru.errors import DataError
from stream_gru.metrics import Metrics
from stream_gru.records.output import OutputRecord, decode_output

log = logging.getLogger(__name__)
T = TypeVar("T")

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0)  # then the last one again and again
_FETCH_AFTER_S = 5.0  # of standing still with something to read
_STALLED_S = 60.0
_LOOK_S = 20.0  # after so long without a look, nothing is known of what was delivered meanwhile
STUCK_S = 8.0  # of waiting for one call, and something is wrong
_FETCH_MAX = 500
_encode = msgspec.json.encode
_decode_key = msgspec.json.Decoder(list[str | int]).decode
_decode_run = msgspec.json.Decoder(Run).decode
_decode_cursor = msgspec.json.Decoder(Cursor).decode


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the anomalies topic as it was delivered."""

    partition: int
    position: int  # its offset
    seen: int  # Kafka's timestamp, epoch ms
    value: bytes | None
    generation: int  # of the assignment under which it was fetched
    source: Any = None  # whatever the caller wants to find again


class Epochs:
    """Reads a table's log in order and says which rows count."""

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}  # partition -> epoch
        self._at: dict[int, int] = {}  # partition -> offset
        self.overruled: set[bytes] = set()  # keys whose last row does not count: the one before it must be written anew

    def counts(self, partition: int, offset: int, key: bytes, value: bytes | None) -> bool:
        """Whether this row of the log does; one that an owner wrote after its successor had begun does not."""
        if offset <= self._at.get(partition, -1):  # from the log's start again
            self._newest.pop(partition, None)
        self._at[partition] = offset
        epoch = _epoch(value)
        if epoch is not None and epoch < self._newest.get(partition, 0):
            self.overruled.add(key)
            return False
        if epoch is not None:
            self._newest[partition] = epoch
        self.overruled.discard(key)
        return True


class UnavailableError(Exception):
    """Kafka did not take or answer something now; it may be tried again."""


class StalledError(Exception):
    """There are records to read, but none are delivered."""


class _LostError(Exception):
    """The partition is no longer ours."""


class Link(Protocol):
    """What ties an `Alerter` to Kafka. Every call may raise `UnavailableError`."""

    @property
    def generation(self) -> int:
        """Of the present assignment."""
        ...

    def owned(self, generation: int) -> set[int]:
        """The partitions assigned under `generation`; none when it is over or a rebalance is on."""
        ...

    async def publish(self, alerts: Sequence[Alert]) -> None:
        """Return when all are acknowledged."""
        ...

    async def store(self, partition: int, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write rows of the table (None: delete) in this order; return when all are acknowledged."""
        ...

    async def starts(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset of the first record that each partition still has."""
        ...

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset after the last record of each partition."""
        ...

    async def fetch(self, partition: int, start: int, stop: int, generation: int) -> list[Record]:
        """The records from `start` up to `stop` that Kafka still has."""
        ...


class Alerter:
    """The ledgers of the partitions assigned to this process."""

    def __init__(self, link: Link, metrics: Metrics, topic: str, silence_s: float) -> None:
        self._link = link
        self._metrics = metrics
        self._topic = topic  # the anomalies topic: for what is logged and counted
        self._silence_ms = int(silence_s * 1000)
        self._ledgers: dict[int, Ledger] = {}
        self._epochs: dict[int, int] = {}  # that of this owner
        self._overruled: dict[int, set[bytes]] = {}  # rows to write anew, before anything else
        self._next: dict[int, int] = {}  # offset to read; no entry: not known yet, as the table does not say
        self._unmarked: set[int] = (
            set()
        )  # partitions that begin at their log's start, and the table does not say so yet
        self._read_up_to: dict[int, int] = {}  # Kafka's timestamp of the last record read
        self._waiting_since: dict[int, float] = {}  # behind, and nothing was delivered since, monotonic
        self._fell_back: str | None = None  # a log that ends before what was read of it
        self._looked = time.monotonic()  # for what is delivered
        self._stuck: dict[str, tuple[float, str]] = {}  # what is not done -> since when, monotonic; what is known of it
        self.lock = asyncio.Lock()  # held while anything is written: who holds it sees no write in flight

    def problem(self) -> str | None:
        """What Kafka has not done for too long, in words."""
        for what, (since, why) in self._stuck.items():
            if time.monotonic() - since > STUCK_S:
                return f"Kafka does not {what}" + (f" ({why})" if why else "")
        return self._fell_back

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
            self._ledgers = {partition: Ledger() for partition in partitions}
            self._read_up_to, self._waiting_since, self._unmarked = {}, {}, set()
            self._epochs = dict.fromkeys(self._ledgers, 1)
            self._overruled = {partition: set() for partition in self._ledgers}
            known = set()
            for key, value in rows:
                try:
                    partition, run_key = unpack_key(key)
                    if partition not in self._ledgers:
                        continue
                    if run_key is None:
                        self._ledgers[partition].cursor = cursor = _decode_cursor(value)
                        epoch = cursor.epoch
                    else:
                        self._ledgers[partition].runs[run_key] = run = _decode_run(value)
                        epoch = run.epoch
                    self._epochs[partition] = max(self._epochs[partition], epoch + 1)
                    known.add(partition)
                except (msgspec.MsgspecError, ValueError) as error:
                    log.error("a row of the alerts' table can't be read and is left out (%s)", type(error).__name__)
            self._next = {partition: self._ledgers[partition].cursor.next for partition in known}
            for key in overruled:
                with suppress(msgspec.MsgspecError, ValueError):  # no key of ours
                    self._overruled.get(unpack_key(key)[0], set()).add(key)

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
        owned = self._link.owned(generation) & self._next.keys()
        read = {partition: self._next[partition] for partition in owned}
        ends = await self._ends(owned)
        shorter = [p for p in ends if ends[p] < read[p]]
        self._fell_back = self._made_anew(shorter[0], ends, read) if shorter else None
        firing = 0
        async with self.lock:
            self._forget_waiting_for_kafka()
            for partition in owned & self._link.owned(generation):
                ledger = self._ledgers[partition]
                behind = max(0, ends[partition] - self._next[partition])
                self._metrics.lag.labels(self._topic, str(partition)).set(behind)
                with suppress(_LostError):
                    if self._waits(partition, behind):
                        await self._fetch(partition, generation, ends[partition])
                        behind = 0
                    clock = self._read_up_to.get(partition, 0) if behind else now_ms
                    await self._apply(partition, generation, ledger.hush(clock, self._silence_ms))
                firing += ledger.firing()
        self._metrics.firing.set(firing)

    async def _ends(self, owned: set[int]) -> dict[int, int]:
        """Raises `UnavailableError`."""
        what = f"say where {self._topic} ends"
        if not owned:
            self._stuck.pop(what, None)
            return {}
        since, _ = self._stuck.setdefault(what, (time.monotonic(), ""))
        try:
            ends = await self._link.ends(owned)
        except UnavailableError as error:
            self._stuck[what] = (since, str(error))
            raise
        self._stuck.pop(what, None)
        return ends

    def _made_anew(self, partition: int, ends: dict[int, int], read: dict[int, int]) -> str:
        return (
            f"{self._topic}-{partition} ends at {ends[partition]}, but was read up to {read[partition]}: was the topic "
            "made again? Then stop the alerters, delete the topic that ends in -alerts-firing-changelog and start them"
        )

    def _forget_waiting_for_kafka(self) -> None:
        """While Kafka did not let us look, nothing could be delivered either: that is no standstill."""
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._waiting_since.clear()
        self._looked = now

    def _waits(self, partition: int, behind: int) -> bool:
        """Whether it has been behind for long enough, and nothing was delivered, to fetch it ourselves."""
        if not behind:
            self._waiting_since.pop(partition, None)
            return False
        waited = time.monotonic() - self._waiting_since.setdefault(partition, time.monotonic())
        if waited > _STALLED_S:
            raise StalledError(f"{self._topic}-{partition}: nothing was delivered for {waited:.0f} s")
        return waited > _FETCH_AFTER_S

    async def _take(self, partition: int, records: list[Record], done: list[Record]) -> None:
        """Appends to `done`. Raises `_LostError`."""
        generation = self._link.generation
        if partition not in self._ledgers:
            return
        self._must_own(partition, generation)
        self._waiting_since.pop(partition, None)
        batch: list[Record] = []
        where = f"say where {self._topic} begins"
        await self._patiently(partition, generation, where, partial(self._begin, {partition}))
        following = self._next[partition]
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
        unknown = {p for p in partitions if p in self._ledgers and p not in self._next}
        if unknown:
            for partition, start in (await self._link.starts(unknown)).items():
                if partition not in self._next:
                    self._next[partition] = start
                    self._unmarked.add(partition)

    async def _fetch(self, partition: int, generation: int, stop: int) -> None:
        """Read what was not delivered, up to `stop`."""
        start = self._next[partition]
        log.info("%s-%d: [%d, %d) was not delivered and is fetched", self._topic, partition, start, stop)
        for at in range(start, stop, _FETCH_MAX):
            until = min(stop, at + _FETCH_MAX)
            fetch = partial(self._link.fetch, partition, at, until, generation)
            fetched = await self._patiently(partition, generation, f"deliver records of {self._topic}", fetch)
            if gone := until - at - len(fetched):
                log.warning("%s-%d: %d records of [%d, %d) are gone", self._topic, partition, gone, at, until)
            await self._read(partition, generation, fetched)
            self._next[partition] = until

    async def _read(self, partition: int, generation: int, records: list[Record]) -> None:
        """Take in records that follow on what was read."""
        if not records:
            return
        change = self._ledgers[partition].take(entry for r in records if (entry := self._decode(r)) is not None)
        if partition in self._unmarked:
            change.cursor = Cursor(records[0].position)  # from now on the table, not the commit, says where we are
        await self._apply(partition, generation, change)
        self._unmarked.discard(partition)
        self._next[partition] = records[-1].position + 1
        self._read_up_to[partition] = records[-1].seen

    async def _apply(self, partition: int, generation: int, change: Change) -> None:
        """Make a change durable, then take it over."""

        ledger, overruled = self._ledgers[partition], self._overruled[partition]

        def row(key: Key | None, of: Run | Cursor | None) -> tuple[bytes, bytes | None]:
            stamped = None if of is None else msgspec.structs.replace(of, epoch=self._epochs[partition])
            return pack_key(partition, key), None if stamped is None else _encode(stamped)

        async def write() -> None:
            if overruled:
                keys = [unpack_key(key)[1] for key in sorted(overruled)]
                await self._link.store(
                    partition, [row(key, ledger.cursor if key is None else ledger.runs.get(key)) for key in keys]
                )
            if change.cursor is not None:
                await self._link.store(partition, [row(None, change.cursor)])
            if change.alerts:
                await self._link.publish(change.alerts)
                self._must_own(partition, generation)
            if change.runs:
                rows = [row(key, run) for key, run in change.runs.items()]
                if change.read is not None:
                    rows.append(row(None, change.read))
                await self._link.store(partition, rows)

        await self._patiently(partition, generation, "acknowledge alerts", write)
        overruled.clear()
        ledger.apply(change)
        for alert in change.alerts:
            self._metrics.alert_records.labels(alert.status).inc()

    async def _patiently(self, partition: int, generation: int, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """Repeat an action until Kafka is there for it. Raises `_LostError` once the partition is not ours."""
        since = time.monotonic()
        self._stuck[what] = (since, "")
        try:
            for delay in chain(_BACKOFF_S, repeat(_BACKOFF_S[-1])):
                self._must_own(partition, generation)
                try:
                    return await action()
                except UnavailableError as error:
                    self._stuck[what] = (since, str(error))
                    log.warning("alerts: Kafka is not available, and is asked again (%s)", error)
                    await asyncio.sleep(delay * random.uniform(0.75, 1.25))
        finally:
            self._stuck.pop(what, None)
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


def pack_key(partition: int, key: Key | None = None) -> bytes:
    """The table's key of a run, or of a partition's cursor."""
    return _encode([partition, *(key or ())])


class _Stamped(msgspec.Struct):
    epoch: int = 0


_decode_stamped = msgspec.json.Decoder(_Stamped).decode


def _epoch(value: bytes | None) -> int | None:
    """Of a row; None where a key is deleted, or the row can't be read."""
    try:
        return None if value is None else _decode_stamped(value).epoch
    except msgspec.MsgspecError:
        return None


def unpack_key(packed: bytes) -> tuple[int, Key | None]:
    """The inverse of `pack_key`. Raises `ValueError` or msgspec's errors for anything else."""
    match _decode_key(packed):
        case [int(partition)]:
            return partition, None
        case [int(partition), str(topic), str(series)]:
            return partition, (topic, series)
    raise ValueError("not a key of the alerts' table")
