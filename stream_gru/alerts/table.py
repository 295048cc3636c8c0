"""The table of the alerts: its keys and rows, which rows count, and what an owner knows of each partition from them.

Every row says under which epoch it was written; an owner begins a new one. What an owner that was frozen, or cut off,
still had on its way comes after rows of its successor, and does not count.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from stream_gru.alerts.runs import Cursor, Key, Ledger, Run

log = logging.getLogger(__name__)

_encode = msgspec.json.encode
_decode_key = msgspec.json.Decoder(list[str | int]).decode
_decode_run = msgspec.json.Decoder(Run).decode
_decode_cursor = msgspec.json.Decoder(Cursor).decode

Row = tuple[bytes, bytes | None]  # None: the key is deleted


@dataclass(slots=True)
class Followed:
    """A partition of the anomalies topic as its owner knows it."""

    ledger: Ledger = field(default_factory=Ledger)
    epoch: int = 1  # of this owner
    overruled: set[bytes] = field(default_factory=set)  # keys of rows to write anew, before anything else
    next: int = -1  # offset to read; -1: not known yet, as the table does not say
    unmarked: bool = False  # it begins at its log's start, and the table does not say so yet
    read_up_to: int = 0  # Kafka's timestamp of the last record read, epoch ms

    @property
    def begun(self) -> bool:
        """Whether it is known where to read on."""
        return self.next >= 0

    def row(self, partition: int, key: Key | None, of: Run | Cursor | None) -> Row:
        """A row of this owner's: a run, or without a key the cursor; None deletes it."""
        stamped = None if of is None else msgspec.structs.replace(of, epoch=self.epoch)
        return pack_key(partition, key), None if stamped is None else _encode(stamped)

    def anew(self, partition: int) -> list[Row]:
        """The rows that the log holds wrongly."""
        keys = [unpack_key(key)[1] for key in sorted(self.overruled)]
        return [
            self.row(partition, key, self.ledger.cursor if key is None else self.ledger.runs.get(key)) for key in keys
        ]


def read(
    rows: Iterable[tuple[bytes, bytes]], partitions: Iterable[int], overruled: Iterable[bytes]
) -> dict[int, Followed]:
    """What the table says of `partitions`. `overruled` are the keys of which its log holds something else."""
    found = {partition: Followed() for partition in partitions}
    known = set()
    for key, value in rows:
        try:
            partition, run_key = unpack_key(key)
            if partition not in found:
                continue
            one = found[partition]
            if run_key is None:
                one.ledger.cursor = cursor = _decode_cursor(value)
                epoch = cursor.epoch
            else:
                one.ledger.runs[run_key] = run = _decode_run(value)
                epoch = run.epoch
            one.epoch = max(one.epoch, epoch + 1)
            known.add(partition)
        except (msgspec.MsgspecError, ValueError) as error:
            log.error("a row of the alerts' table can't be read and is left out (%s)", type(error).__name__)
    for partition in known:
        found[partition].next = found[partition].ledger.cursor.next
    for key in overruled:
        with suppress(msgspec.MsgspecError, ValueError):  # no key of ours
            if (of := found.get(unpack_key(key)[0])) is not None:
                of.overruled.add(key)
    return found


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


class _Stamped(msgspec.Struct):
    epoch: int = 0


_decode_stamped = msgspec.json.Decoder(_Stamped).decode


def _epoch(value: bytes | None) -> int | None:
    """Of a row; None where a key is deleted, or the row can't be read."""
    try:
        return None if value is None else _decode_stamped(value).epoch
    except msgspec.MsgspecError:
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
