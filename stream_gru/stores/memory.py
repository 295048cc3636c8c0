"""Rows in this process: for tests, notebooks and a first look. Nothing survives the process.

``memory://name`` is one store for all of the process that connect to that name; ``memory://`` is a store of one's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stream_gru.errors import FencedError, StoreError
from stream_gru.settings import State
from stream_gru.stores import Assigned, Chosen, Identity, PartitionId, StoreAnswer, Write

SCHEMES = ("memory",)
_RESTORED_ROWS = 4096  # at a time: the event loop has its turn in between


@dataclass(slots=True)
class _Kept:
    """What is kept of one partition; in the words of the rules, its control fields and its rows."""

    owner: str
    identity: Identity
    seq: int = 0
    offset: int | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    reading: str = ""

    def write(self, write: Write) -> StoreAnswer:
        """Rule R2."""
        if write.owner != self.owner:
            return StoreAnswer.FENCED
        if self.seq >= write.n:
            return StoreAnswer.OK
        if self.seq != write.n - 1:
            return StoreAnswer.FENCED
        if write.offset is not None and self.offset is not None and write.offset < self.offset:
            raise StoreError(f"a write would move the offset back from {self.offset} to {write.offset}")
        if write.identity is not None:
            self.rows.clear()
            self.identity = write.identity
        self.rows.update(zip(write.series, write.rows, strict=True))
        if write.offset is not None:  # R4
            self.offset, self.marks = write.offset, dict(write.marks)
        self.seq = write.n
        return StoreAnswer.OK


@dataclass(slots=True)
class _Space:
    """All that one store holds."""

    partitions: dict[PartitionId, _Kept] = field(default_factory=dict)
    chosen: dict[str, Chosen] = field(default_factory=dict)  # group -> its model


_named: defaultdict[str, _Space] = defaultdict(_Space)


class MemoryStore:
    """A `Store` over dicts."""

    def __init__(self, space: _Space) -> None:
        self._partitions, self._chosen = space.partitions, space.chosen

    async def open(self) -> list[str]:
        return ["the state is kept in this process alone (memory://) and ends with it"]

    async def assign(self, partition: PartitionId, owner: str, identity: Identity) -> Assigned:
        kept = self._partitions.get(partition)
        if kept is None:
            self._partitions[partition] = _Kept(owner, identity)
            return Assigned(None, None)
        kept.owner, kept.seq = owner, 0
        return Assigned(kept.offset, kept.identity, len(kept.rows), kept.marks, kept.reading)

    async def write(self, partition: PartitionId, writes: Sequence[Write]) -> StoreAnswer:
        kept = self._partitions.get(partition)
        fenced = any(kept is None or kept.write(write) is StoreAnswer.FENCED for write in writes)
        return StoreAnswer.FENCED if fenced else StoreAnswer.OK

    async def load(
        self, partition: PartitionId, owner: str, confirmed: int, series: Sequence[bytes]
    ) -> list[bytes | None]:
        rows = self._fenced(partition, owner, confirmed).rows
        return [rows.get(one) for one in series]

    async def restore(
        self, partition: PartitionId, owner: str, confirmed: int
    ) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        rows = list(self._fenced(partition, owner, confirmed).rows.items())
        for start in range(0, len(rows), _RESTORED_ROWS):
            self._fenced(partition, owner, confirmed)
            yield rows[start : start + _RESTORED_ROWS]

    async def probe(self, partition: PartitionId, owner: str, confirmed: int) -> StoreAnswer:
        kept = self._partitions.get(partition)
        return StoreAnswer.OK if kept and kept.owner == owner and kept.seq >= confirmed else StoreAnswer.FENCED

    async def probes(self, owned: Sequence[tuple[PartitionId, str, int]]) -> list[StoreAnswer]:
        return [await self.probe(*one) for one in owned]

    async def mark(self, partition: PartitionId, owner: str, reading: str) -> StoreAnswer:
        kept = self._partitions.get(partition)
        if kept is None or kept.owner != owner:
            return StoreAnswer.FENCED
        kept.reading = reading
        return StoreAnswer.OK

    async def mark_soon(self, words: Sequence[tuple[PartitionId, str, str]]) -> None:
        for word in words:
            await self.mark(*word)

    async def choose(self, group: str, chosen: Chosen, instead: Mapping[str, str]) -> None:
        before = self._chosen.get(group)
        replaced = {**(before.replaced if before else {}), **instead}
        replaced.pop(chosen.digest, None)
        self._chosen[group] = replace(chosen, replaced=replaced)

    async def chosen(self, group: str, *, files: bool) -> Chosen | None:
        found = self._chosen.get(group)
        return found if found is None or files else replace(found, files={})

    async def forget(self, group: str) -> None:
        self._chosen.pop(group, None)

    async def delete(self, partition: PartitionId) -> int:
        kept = self._partitions.pop(partition, None)
        return len(kept.rows) if kept else 0

    async def close(self) -> None:
        """What others hold under the same name stays."""

    def _fenced(self, partition: PartitionId, owner: str, confirmed: int) -> _Kept:
        """Rule R9."""
        kept = self._partitions.get(partition)
        if kept is None or kept.owner != owner or kept.seq < confirmed:
            raise FencedError(f"{partition}: another worker has taken it, or the store went back in time")
        return kept


def connect(state: State) -> MemoryStore:
    """The store of that name in this process."""
    name = state.address.host
    return MemoryStore(_named[name] if name else _Space())
