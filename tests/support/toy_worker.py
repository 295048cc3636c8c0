"""A partition, toy rows and a store that work as a worker does, and a Redis that goes back in time."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from stream_gru.errors import StoreUnavailableError
from stream_gru.protocol.partition import Checkpoint, Commit, Partition, Start
from stream_gru.stores import Identity, PartitionId, Store, StoreAnswer, Write
from stream_gru.tools.embedded import RedisServer
from tests.model.store import Row, decode

ID = PartitionId("group", "readings", 0)

IDENTITY = Identity(topic_id="T", partitions=1, buckets=16, model="m", row="1")

LOG = [b"a", b"b", b"c", b"d", b"a", b"b", b"e", b"a", b"c", b"f", b"a", b"e"]

OK, FENCED = StoreAnswer.OK, StoreAnswer.FENCED

T = TypeVar("T")


@dataclass
class Kafka:
    """A log, the outputs that were acknowledged, and the group's commit."""

    outputs: dict[int, set[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(set))
    commit: Commit | None = None

    @staticmethod
    def right(offset: int) -> tuple[int, ...]:
        """What a row must be made of."""
        return tuple(o for o in range(offset + 1) if LOG[o] == LOG[offset])


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """A restarted Redis has closed its connections: the same call again, until it is answered."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StoreUnavailableError):
                return await call()


class Worker:
    """A partition, an arena of toy rows, and a store."""

    def __init__(self, kafka: Kafka, store: Store) -> None:
        self.kafka, self.store, self.partition = kafka, store, Partition(ID)
        self.rows: dict[bytes, Row] = {}
        self.dirty: set[bytes] = set()

    async def take(self) -> Start:
        """Claim, open, restore, settle."""
        partition = self.partition
        owner = partition.claim(IDENTITY)
        self.rows, self.dirty = {}, set()
        assigned = await self.store.assign(ID, owner, IDENTITY)
        opening = partition.open(owner, assigned, self.kafka.commit, 0, len(LOG))
        async for some in self.store.restore(ID, owner, partition.confirmed_seq):
            self.rows |= {series: decode(row) for series, row in some}
        if partition.changed:
            await self.checkpoint()
        self.commit()
        assert partition.settled
        return opening.start

    async def run(self, records: int) -> None:
        """Step that many records and have their outputs acknowledged."""
        partition = self.partition
        offsets = np.arange(partition.position, partition.position + records)
        assert partition.owner is not None
        wanted = sorted({LOG[offset] for offset in offsets} - set(self.rows))
        owner, seq = partition.owner, partition.confirmed_seq
        loaded = await patiently(lambda: self.store.load(ID, owner, seq, wanted))
        self.rows |= {one: decode(row) if row else Row(-1, (), "m") for one, row in zip(wanted, loaded, strict=True)}
        batch = partition.begin(offsets)
        for offset, mute in zip(offsets.tolist(), partition.muted(offsets), strict=True):
            row = self.rows[LOG[offset]]
            if row.offset < offset:
                row = self.rows[LOG[offset]] = Row(offset, (*row.history, offset), "m")
                self.dirty.add(LOG[offset])
                if not mute:
                    self.kafka.outputs[offset].add(row.history)
        partition.stepped(batch)
        partition.acknowledged(batch)

    def cut(self) -> tuple[Checkpoint, list[Write]]:
        """A checkpoint of now, in chunks of two rows."""
        checkpoint = self.partition.cut()
        assert checkpoint is not None
        series = sorted(self.dirty)
        self.dirty = set()
        return checkpoint, self.partition.writes(checkpoint, series, [self.rows[s].encode() for s in series], 2, "T")

    async def checkpoint(self) -> StoreAnswer:
        """Cut, write until the store answers, confirm, commit."""
        checkpoint, writes = self.cut()
        outcome = await patiently(lambda: self.store.write(ID, writes))
        if outcome is OK:
            self.partition.confirmed(checkpoint)
            self.commit()
        else:
            self.partition.drop()
        return outcome

    def commit(self) -> None:
        if commit := self.partition.commit():
            self.kafka.commit = commit
            self.partition.committed(commit)

    async def finish(self) -> None:
        """To the end of the log; then everything must be as if nothing had happened."""
        await self.run(len(LOG) - self.partition.position)
        assert await self.checkpoint() is OK
        assert {offset: {Kafka.right(offset)} for offset in range(len(LOG))} == self.kafka.outputs
        assert (await self.take(), self.partition.position) == (Start.RESUMED, len(LOG))
        last = {series: offset for offset, series in enumerate(LOG)}
        assert self.rows == {series: Row(offset, Kafka.right(offset), "m") for series, offset in last.items()}


class TimeMachine:
    """A Redis that writes everything to disk at once and can be brought back to what it was."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.url = server.url

    def remember(self) -> Path:
        """Its files as they are now."""
        copy = self.folder / str(len(list(self.folder.iterdir())))
        shutil.copytree(self.server.directory, copy, ignore=shutil.ignore_patterns("*.log"))
        return copy

    def go_back(self, to: Path) -> None:
        """Crash, and come up again as it was."""
        self.server.kill()
        for entry in self.server.directory.iterdir():
            if entry.suffix != ".log":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.copytree(to, self.server.directory, dirs_exist_ok=True)
        self.server.start()

    @staticmethod
    def tail(of: Path) -> Path:
        """The append-only file that was written last, in either layout (one file, or several since Redis 7)."""
        found = [file for file in of.rglob("*.aof") if not file.name.endswith(".base.aof")]
        return max(found, key=lambda file: file.stat().st_size)
