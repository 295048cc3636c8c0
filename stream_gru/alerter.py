"""From batches of the anomalies topic to alerts that are published once and never lost, whatever moves the records.

The order is: the cursor, if it moved; the alerts, acknowledged; the runs, acknowledged; only then the batch counts as
read. A crash in between repeats an alert under the same id.

What brings the records (Faust) moves them through queues that it empties at a rebalance, and it may commit past records
that were in them. So the stored state says how far each partition was read: what comes again is left out, and where
something is missing we go back for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from stream_gru.alerts import Alert, Change, Cursor, Key, Ledger, Output, Place, Run
from stream_gru.metrics import Metrics

log = logging.getLogger(__name__)

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0)  # then the last one again and again
_SEEK_AGAIN_S = 10.0  # a rewind that raced with a fetch has no effect
_STALLED_S = 60.0
_encode = msgspec.json.encode
_decode_output = msgspec.json.Decoder(Output).decode
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


class UnavailableError(Exception):
    """Kafka did not take or answer something now; it may be tried again."""


class StalledError(Exception):
    """There are records to read, but none arrive."""


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

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset after the last record of each partition."""
        ...

    async def earliest(self, partition: int) -> int:
        """The offset of the first record that Kafka still has."""
        ...

    async def seek(self, partition: int, offset: int) -> None:
        """Deliver from `offset` on."""
        ...


class Alerter:
    """The ledgers of the partitions assigned to this process."""

    def __init__(self, link: Link, metrics: Metrics, topic: str, silence_s: float) -> None:
        self._link = link
        self._metrics = metrics
        self._topic = topic  # the anomalies topic: for what is logged and counted
        self._silence_ms = int(silence_s * 1000)
        self._ledgers: dict[int, Ledger] = {}
        self._next: dict[int, int] = {}  # offset to read; no entry: the partition was never read
        self._read_up_to: dict[int, int] = {}  # Kafka's timestamp of the last record read
        self._skipped: dict[int, int] = {}  # while going back: the last record that was skipped
        self._sought: dict[int, float] = {}  # when we last went back, monotonic
        self._standing: dict[int, tuple[int, float]] = {}  # partition behind -> (offset to read, since when)
        self.lock = asyncio.Lock()  # held while anything is written: who holds it sees no write in flight

    async def restore(self, rows: Iterable[tuple[bytes, bytes]], partitions: Iterable[int]) -> None:
        """Begin with what the table holds for `partitions`, forgetting everything else."""
        async with self.lock:
            self._ledgers = {partition: Ledger() for partition in partitions}
            self._read_up_to, self._skipped, self._sought, self._standing = {}, {}, {}, {}
            known = set()
            for key, value in rows:
                try:
                    partition, run_key = unpack_key(key)
                    if partition not in self._ledgers:
                        continue
                    if run_key is None:
                        self._ledgers[partition].cursor = _decode_cursor(value)
                    else:
                        self._ledgers[partition].runs[run_key] = _decode_run(value)
                    known.add(partition)
                except (msgspec.MsgspecError, ValueError) as error:
                    log.error("a row of the alerts' table can't be read and is left out (%s)", type(error).__name__)
            self._next = {partition: self._ledgers[partition].next() for partition in known}

    async def take(self, records: Sequence[Record]) -> list[Record]:
        """Take records in; returns those that are done with. The others will be delivered again.

        Waits while Kafka is not available, as long as the partition stays ours.
        """
        done = []
        async with self.lock:
            by_partition = sorted(records, key=attrgetter("partition"))  # stable: order within a partition stays
            for partition, group in groupby(by_partition, attrgetter("partition")):
                done += await self._take(partition, list(group))
        return done

    async def sweep(self, now_ms: int) -> None:
        """Resolve what fell silent, drop what is over, go back again where that had no effect.

        The clock of a partition is the wall's while everything in it was read, else the timestamp of the last record
        read: a backlog that we are working off is not silence. Timestamps are Kafka's own, of the anomalies topic.

        Raises `StalledError` when a partition has had a backlog for a minute and nothing of it was delivered.
        """
        generation = self._link.generation
        owned = self._link.owned(generation) & self._next.keys()
        ends = await self._link.ends(owned) if owned else {}
        firing = 0
        async with self.lock:
            for partition in owned & self._link.owned(generation):
                ledger = self._ledgers[partition]
                behind = max(0, ends[partition] - self._next[partition])
                self._metrics.lag.labels(self._topic, partition).set(behind)
                self._check_moving(partition, behind)
                clock = self._read_up_to.get(partition, 0) if behind else now_ms
                change = ledger.hush(clock, self._silence_ms)
                if await self._write(partition, generation, change):
                    ledger.apply(change)
                firing += ledger.firing()
                if partition in self._skipped and time.monotonic() - self._sought[partition] > _SEEK_AGAIN_S:
                    await self._go_back(partition)
        self._metrics.firing.set(firing)

    def _check_moving(self, partition: int, behind: int) -> None:
        following, now = self._next[partition], time.monotonic()
        if not behind:
            self._standing.pop(partition, None)
        elif self._standing.setdefault(partition, (following, now))[0] != following:
            self._standing[partition] = following, now
        elif now - self._standing[partition][1] > _STALLED_S:
            raise StalledError(f"{self._topic}-{partition} stands at {following} with {behind} records to read")

    async def _take(self, partition: int, records: list[Record]) -> list[Record]:
        generation = self._link.generation
        if partition not in self._link.owned(generation) or partition not in self._ledgers:
            return []
        old, fresh, skipped = self._sort(partition, [r for r in records if r.generation == generation])
        if fresh:
            ledger = self._ledgers[partition]
            change = ledger.take(entry for record in fresh if (entry := self._decode(record)) is not None)
            if partition not in self._next:
                change.cursor = Cursor(fresh[0].position)  # from now on the table, not the commit, says where we are
            if not await self._write(partition, generation, change):
                return old
            ledger.apply(change)
            self._next[partition] = fresh[-1].position + 1
            self._read_up_to[partition] = fresh[-1].seen
        if skipped and partition not in self._sought:
            await self._go_back(partition)
        return old + fresh

    def _sort(self, partition: int, records: Iterable[Record]) -> tuple[list[Record], list[Record], bool]:
        """Records that were read before, those that follow on, and whether there are others, past a hole."""
        old, fresh = [], []
        following = self._next.get(partition)
        for record in records:
            if following is not None and record.position < following:
                old.append(record)
                continue
            if following is not None and record.position > following:
                last_skipped = self._skipped.get(partition, -1)
                if record.position > last_skipped:  # from before we went back, or we have yet to
                    self._skipped[partition] = record.position
                    continue
                # We went back and there is nothing between.
                log.warning("%s-%d: no records in [%d, %d)", self._topic, partition, following, record.position)
            self._skipped.pop(partition, None)
            self._sought.pop(partition, None)
            fresh.append(record)
            following = record.position + 1
        return old, fresh, partition in self._skipped

    async def _go_back(self, partition: int) -> None:
        """Have the first missing record delivered, or the first that is still there."""
        following = self._next[partition]
        self._sought[partition] = time.monotonic()
        try:
            earliest = await self._link.earliest(partition)
            if earliest > following:
                log.warning("%s-%d: [%d, %d) is gone unread", self._topic, partition, following, earliest)
                self._next[partition] = following = earliest
            log.info("%s-%d: going back to %d", self._topic, partition, following)
            await self._link.seek(partition, following)
        except UnavailableError as error:
            log.warning("%s-%d: could not go back to %d (%s)", self._topic, partition, following, error)

    async def _write(self, partition: int, generation: int, change: Change) -> bool:
        """Make a change durable, however long that takes; False when the partition was taken from us."""
        for delay in chain(_BACKOFF_S, repeat(_BACKOFF_S[-1])):
            if partition not in self._link.owned(generation):
                return False
            try:
                if change.cursor is not None:
                    await self._link.store(partition, [(pack_key(partition), _encode(change.cursor))])
                if change.alerts:
                    await self._link.publish(change.alerts)
                    if partition not in self._link.owned(generation):
                        return False
                if change.runs:
                    runs = change.runs.items()
                    rows = [(pack_key(partition, key), _encode(run) if run else None) for key, run in runs]
                    await self._link.store(partition, rows)
                break
            except UnavailableError as error:
                log.warning("alerts can't be written to Kafka (%s); trying again in %g s", error, delay)
                await asyncio.sleep(delay)
        for alert in change.alerts:
            self._metrics.alert_records.labels(alert.status).inc()
        return True

    def _decode(self, record: Record) -> tuple[Output, Place, int, int] | None:
        try:
            output = _decode_output(record.value or b"")
            return output, Place.of(output.id), record.seen, record.position
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            # Only where it is: what it holds, or a message that quotes it, has no business in a log.
            where = f"{self._topic}-{record.partition}-{record.position}"
            log.warning("%s is not an output record (%s); skipped", where, type(error).__name__)
            self._metrics.unreadable.labels(self._topic).inc()
            return None


def pack_key(partition: int, key: Key | None = None) -> bytes:
    """The table's key of a run, or of a partition's cursor."""
    return _encode([partition, *(key or ())])


def unpack_key(packed: bytes) -> tuple[int, Key | None]:
    """The inverse of `pack_key`. Raises `ValueError` or msgspec's errors for anything else."""
    match _decode_key(packed):
        case [int(partition)]:
            return partition, None
        case [int(partition), str(topic), str(series)]:
            return partition, (topic, series)
    raise ValueError("not a key of the alerts' table")
