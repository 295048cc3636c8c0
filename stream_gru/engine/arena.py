"""Every resident row: series key -> slot, free slots, copies of what changed.

A slot is the index of a row. The bodies of all rows are ONE contiguous tensor on the device; their heads, which decide
whether a reading is applied at all, and their past forecasts stay on the host. A partition is a small integer that the
caller hands out when it is assigned. Beside each row the host keeps when it was last seen, whether it changed since the
last cut, and whether it lies in a checkpoint that the store has not confirmed yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stream_gru.columns import Ints
from stream_gru.engine.row import PAST, Layout, RowBytes, Structured, as_bytes, words
from stream_gru.errors import StoreError, StreamGruError

_LAST_TICK = 2**31 - 1
_RECENT = 2  # batches: the one being admitted and the one being stepped keep their rows
_EVICT_SHARE = 64  # at least 1/64 of the arena goes at once, so that a scan of it is paid for by many evictions


class ArenaFullError(StreamGruError):
    """No row may be evicted: bring the checkpoint forward, confirm it and try again (rules R7, R8)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A copy of the rows of one partition that changed since its last cut (rule R5)."""

    series: list[bytes]
    rows: RowBytes  # (n, row_bytes)

    def __len__(self) -> int:
        return len(self.series)

    def chunks(self, size: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """(series, rows) of at most `size` rows each; none for an empty cut."""
        for start in range(0, len(self.series), size):
            yield self.series[start : start + size], as_bytes(self.rows[start : start + size])


class Arena:
    """Rows of all assigned partitions. Not thread-safe: one batch or cut at a time."""

    def __init__(self, layout: Layout, fresh: Structured, capacity: int, device: torch.device) -> None:
        """`fresh` is the row of a series never seen, (1,); `capacity` the most rows held."""
        self.layout = layout
        self.capacity = capacity
        self.device = device
        self.fresh = fresh.tobytes()
        # Left uninitialised so that the system commits memory only as rows are written.
        self.heads = np.empty(capacity, layout.head)
        self.past = np.empty((capacity, PAST), layout.past)
        self.bodies = torch.empty((capacity, layout.features * layout.width), device=device)
        self._slots: dict[int, dict[bytes, int]] = {}  # partition -> series -> slot
        self._unconfirmed: dict[int, deque[Ints]] = {}  # partition -> slots of each unconfirmed cut, oldest first
        self._names: npt.NDArray[Any] = np.empty(capacity, object)  # slot -> series
        self._seen = np.zeros(capacity, np.int32)  # slot -> the tick of the batch that last named it
        self._owner = np.zeros(capacity, np.int16)  # slot -> partition + 1; 0: free
        self._dirty = np.zeros(capacity, np.bool_)
        self._pins = np.zeros(capacity, np.uint8)  # unconfirmed cuts that hold the row
        self._free: list[int] = []
        self._top = 0  # slots from here on were never used
        self._tick = _RECENT

    def __len__(self) -> int:
        """Resident rows."""
        return self._top - len(self._free)

    @property
    def partitions(self) -> list[int]:
        """The open partitions."""
        return list(self._slots)

    @property
    def dirty(self) -> int:
        """Rows that changed since the last cut of their partition."""
        return int(np.count_nonzero(self._dirty[: self._top]))

    @property
    def changed(self) -> set[int]:
        """The partitions that have such rows."""
        return set((np.unique(self._owner[: self._top][self._dirty[: self._top]]) - 1).tolist())

    def series(self, partition: int) -> int:
        """Resident rows of one partition."""
        return len(self._slots[partition])

    def names(self, partition: int) -> list[bytes]:
        """The resident series of one partition, in the order in which they came."""
        return list(self._slots[partition])

    def open(self, partition: int) -> None:
        """Take an assigned partition, without any rows."""
        if partition in self._slots:
            raise ValueError(f"partition {partition} is open already")
        self._slots[partition] = {}
        self._unconfirmed[partition] = deque()

    def close(self, partition: int) -> None:
        """Drop a partition and all of its rows."""
        slots = self._slots.pop(partition)
        del self._unconfirmed[partition]
        self._release(np.fromiter(slots.values(), np.int64, len(slots)))

    def remove(self, partition: int, series: Sequence[bytes]) -> None:
        """Drop the rows of some resident series, whatever changed."""
        known = self._slots[partition]
        self._release(np.array([known.pop(name) for name in series], np.int64))

    def lookup(self, partition: int, series: Sequence[bytes]) -> Ints:
        """The slots of N series, -1 where a series is not resident."""
        return np.fromiter(map(self._slots[partition].get, series, repeat(-1)), np.int64, len(series))

    def insert(self, partition: int, series: Sequence[bytes], rows: Sequence[bytes | None] | None = None) -> Ints:
        """Take in distinct series that are not resident; the slots. Rows from the store are clean.

        A row of None, and `rows` = None, stand for a series never seen. Raises `ArenaFullError` when there is no room
        (see `make_room`) and `StoreError` for a row of another size.
        """
        if len(series) > self.capacity - len(self):
            raise ArenaFullError(f"there is no room for {len(series)} rows; make room first")
        loaded = self._parse(len(series), rows)
        slots = self._take(len(series))
        known = self._slots[partition]
        expected = len(known) + len(series)
        known.update(zip(series, slots.tolist(), strict=True))
        if len(known) != expected:
            raise ValueError("a series was inserted twice")
        names = np.empty(len(series), object)
        names[:] = series
        self._names[slots] = names
        self._owner[slots] = partition + 1
        self._seen[slots] = self._tick
        self.write(slots, loaded)
        return slots

    def admit(self, partition: int, series: Sequence[bytes]) -> Ints:
        """The slots of N series where no store stands behind the arena: what is not resident is new."""
        slots = self.lookup(partition, series)
        if (slots < 0).any():
            new = list(dict.fromkeys(s for s, slot in zip(series, slots.tolist(), strict=True) if slot < 0))
            self.make_room(len(new))
            self.insert(partition, new)
            slots = self.lookup(partition, series)
        self.touch(slots)
        return slots

    def touch(self, slots: Ints) -> None:
        """Say that the batch in hand names these rows: they are not evicted until it and the next were stepped."""
        self._seen[slots] = self._tick

    def stepped(self, changed: Ints) -> None:
        """A batch was stepped and changed these rows."""
        self._dirty[changed] = True
        self._tick += 1
        if self._tick == _LAST_TICK:
            self._tick >>= 1
            self._seen >>= 1

    def mark_dirty(self, slots: Ints) -> None:
        """Rows that changed by something else than a batch, a reset for example."""
        self._dirty[slots] = True

    def cut(self, partition: int) -> Cut:
        """A copy of the partition's changed rows; clears their marks and pins them until `confirm`."""
        return self.cuts([partition])[partition]

    def cuts(self, partitions: Sequence[int]) -> dict[int, Cut]:
        """The cuts of several partitions, with one gather."""
        slots = np.flatnonzero(self._dirty[: self._top])
        owner = self._owner[slots]
        order = np.argsort(owner, kind="stable")
        slots, owner = slots[order], owner[order]
        wanted = np.isin(owner, np.asarray(partitions, np.int16) + 1)
        slots, owner = slots[wanted], owner[wanted]
        rows = self.read(slots)
        names: list[bytes] = self._names[slots].tolist()
        self._dirty[slots] = False
        self._pins[slots] += 1
        cuts = {}
        for partition in partitions:
            first, last = np.searchsorted(owner, [partition + 1, partition + 2])
            cuts[partition] = Cut(names[first:last], rows[first:last])
            self._unconfirmed[partition].append(slots[first:last])
        return cuts

    def confirm(self, partition: int) -> None:
        """The store holds the oldest unconfirmed cut of the partition: its rows may be evicted again."""
        self._pins[self._unconfirmed[partition].popleft()] -= 1

    def make_room(self, n: int) -> dict[int, list[bytes]]:
        """Evict until `n` rows fit; which series of which partition went. Empty when there was room.

        The least recently seen rows go, but none that changed since its last cut, lies in an unconfirmed one, or is
        named by a batch in hand. Raises `ArenaFullError` where that leaves too few.
        """
        short = n - (self.capacity - len(self))
        if short <= 0:
            return {}
        top = self._top
        idle = (self._owner[:top] > 0) & ~self._dirty[:top] & (self._pins[:top] == 0)
        slots = np.flatnonzero(idle & (self._seen[:top] <= self._tick - _RECENT))
        if len(slots) < short:
            raise ArenaFullError(
                f"the arena holds {len(self)} of {self.capacity} rows and only {len(slots)} of the {short} that must "
                "go may be evicted: the others changed since the last confirmed checkpoint or are in use; "
                "checkpoint first, or raise state.capacity"
            )
        going = min(len(slots), max(short, self.capacity // _EVICT_SHARE))
        slots = slots[np.argpartition(self._seen[slots], going - 1)[:going]]
        evicted: dict[int, list[bytes]] = {}
        for partition in np.unique(self._owner[slots]).tolist():
            names = self._names[slots[self._owner[slots] == partition]].tolist()
            known = self._slots[partition - 1]
            for name in names:
                del known[name]
            evicted[partition - 1] = names
        self._release(slots)
        return evicted

    def take(self, slots: Ints) -> Structured:
        """A copy of heads, (n,)."""
        return np.take(words(self.heads), slots, 0).view(self.layout.head)[:, 0]

    def put(self, slots: Ints, heads: Structured) -> None:
        """Overwrite heads (n,) at distinct slots."""
        words(self.heads)[slots] = words(heads)

    def read(self, slots: Ints) -> RowBytes:
        """A copy of rows, (n, row_bytes)."""
        head, body = self._bounds()
        rows = np.empty((len(slots), self.layout.row_bytes), np.uint8)
        rows[:, :head] = self.take(slots).view(np.uint8).reshape(-1, head)
        past = words(self.past).reshape(self.capacity, -1)
        rows[:, head:body] = np.take(past, slots, 0).view(np.uint8)
        bodies = self.bodies.index_select(0, torch.from_numpy(slots).to(self.device)).cpu().numpy()
        rows[:, body:] = bodies.view(np.uint8)
        return rows

    def write(self, slots: Ints, rows: RowBytes) -> None:
        """Overwrite rows, (n, row_bytes), at distinct slots."""
        head, body = self._bounds()
        self.heads[slots] = np.ascontiguousarray(rows[:, :head]).view(self.layout.head)[:, 0]
        self.past[slots] = np.ascontiguousarray(rows[:, head:body]).view(self.layout.past)
        bodies = torch.from_numpy(np.ascontiguousarray(rows[:, body:]).view(np.float32)).to(self.device)
        self.bodies.index_copy_(0, torch.from_numpy(slots).to(self.device), bodies)

    def reset(self, slots: Ints, offset: Ints) -> None:
        """Forget what was learned; the rows cover the records up to `offset` (N,) all the same. They become dirty."""
        self.write(slots, self._parse(len(slots), None))
        self.heads["offset"][slots] = offset
        self.mark_dirty(slots)

    def _bounds(self) -> tuple[int, int]:
        """Where in a row's bytes the past begins, and the body."""
        head = self.layout.head.itemsize
        return head, head + PAST * self.layout.past.itemsize

    def _parse(self, n: int, rows: Sequence[bytes | None] | None) -> RowBytes:
        """`n` rows as they came from the store, (n, row_bytes)."""
        size = self.layout.row_bytes
        filled = [self.fresh] * n if rows is None else [self.fresh if row is None else row for row in rows]
        if any(len(row) != size for row in filled):
            raise StoreError(f"a stored row does not have the {size} bytes that this model's rows have")
        return np.frombuffer(bytearray().join(filled), np.uint8).reshape(n, size)

    def _take(self, n: int) -> Ints:
        """`n` free slots, recycled ones first."""
        recycled = self._free[len(self._free) - min(n, len(self._free)) :]
        del self._free[len(self._free) - len(recycled) :]
        grown = n - len(recycled)
        self._top += grown
        return np.concatenate([np.array(recycled, np.int64), np.arange(self._top - grown, self._top)])

    def _release(self, slots: Ints) -> None:
        self._names[slots] = None
        self._owner[slots] = 0
        self._dirty[slots] = False
        self._pins[slots] = 0
        self._free.extend(slots.tolist())
