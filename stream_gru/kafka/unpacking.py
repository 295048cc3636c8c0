"""Record batches unpacked within bounds, and those that can't be read passed over as one range instead of an error.

aiokafka unpacks a batch whole, however large it becomes, and where one is damaged `getmany` raises for ever. With
`install`, every consumer in the process unpacks at most so many bytes of a batch, and gets one `Unreadable` in place of
the records of a batch that is larger or damaged: a record without key and payload, at the last of the offsets that are
passed over, so that the position goes on behind it. Many batches that are just within the bound add up: once it is
reached, nothing more is unpacked before the event loop has had its turn, and `spent` says how much it was altogether.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cramjam
import numpy as np
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record import default_records, legacy_records
from aiokafka.record.memory_records import MemoryRecords

from stream_gru.records.dead_letters import Reason

MAX_BATCH_BYTES = 64 << 20
_FETCHES = 3  # of a batch whose checksum is wrong: what was damaged on its way only is whole the next time
_PIECE = 4 << 20  # that gzip unpacks at once
_FIRST = 64 << 10  # least room to try
_FULL = "failed to write whole buffer"  # what cramjam says when there is not enough of it
_XERIAL = b"\x82SNAPPY\x00"  # then two version numbers: the framing of Java's snappy
_XERIAL_HEADER = 16
_LENGTH_AT, _LENGTH_END, _COUNT_AT = 8, 12, 57  # in a batch: where its length stands and ends, and the records it has

_max_bytes = MAX_BATCH_BYTES
_spent = 0  # bytes unpacked
_spent_before = 0  # this turn of the event loop
_damaged: dict[TopicPartition, tuple[int, int]] = {}  # offset of the batch that was damaged last, and how many times


class BatchTooLargeError(Exception):
    """A batch that unpacks to more than it may."""


@dataclass
class Unreadable(ConsumerRecord):  # type: ignore[misc]  # aiokafka's types are not followed
    """Stands for the records at the offsets `first` to `offset`, none of which can be read."""

    first: int = 0
    reason: Reason = Reason.BATCH_CORRUPT
    detail: str = ""  # nothing of the payload


def install() -> None:
    """Have every consumer of aiokafka in this process read within bounds, from its next fetch on."""
    fetcher.MemoryRecords, fetcher.PartitionRecords = _Batches, _PartitionRecords
    # The compiled modules, where there are any, look their decoders up by name at each call, as the others do.
    for module in (default_records, legacy_records, *_compiled()):
        for codec, unpack in _CODECS.items():
            if hasattr(module, f"{codec}_decode"):
                setattr(module, f"{codec}_decode", unpack)


def limit(max_batch_bytes: int) -> None:
    """How large a batch of this process' consumers may be, unpacked; 64 MiB unless this is called."""
    global _max_bytes  # noqa: PLW0603 - aiokafka's decoders know nothing of the consumer that they work for
    _max_bytes = max_batch_bytes


def spent() -> int:
    """How many bytes were unpacked in this process so far."""
    return _spent


def _spend(size: int) -> None:
    global _spent, _spent_before  # noqa: PLW0603 - as above
    if _spent == _spent_before:  # the first of this turn
        try:
            asyncio.get_running_loop().call_soon(_next_turn)
        except RuntimeError:  # there are no turns
            _spent_before += size
    _spent += size


def _next_turn() -> None:
    global _spent_before  # noqa: PLW0603 - as above
    _spent_before = _spent


def _compiled() -> list[ModuleType]:
    parents = {default_records.DefaultRecordBatch.__module__, legacy_records.LegacyRecordBatch.__module__}
    return [sys.modules[name] for name in parents]


# -- codecs


def _bounded(codec: str, unpack: Callable[[memoryview, int], bytes]) -> Callable[[Any], bytes]:
    """`unpack` in the form of aiokafka's decoders."""

    def decode(packed: Any) -> bytes:
        try:
            unpacked = unpack(memoryview(packed), _max_bytes)
            _spend(len(unpacked))
            return unpacked
        except BatchTooLargeError:
            _spend(_max_bytes)
            raise BatchTooLargeError(
                f"{len(packed)} bytes packed with {codec}, unpacked more than the {_max_bytes} that "
                "input.max_batch_bytes allows"
            ) from None
        except (zlib.error, cramjam.DecompressionError, struct.error, EOFError) as error:
            raise CorruptRecordException(f"can't be unpacked with {codec}: {error}") from error

    return decode


def _gzip(packed: memoryview, most: int) -> bytes:
    parts, left, rest = [], most, bytes(packed)
    while rest:  # one member after another
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            part = member.decompress(rest, min(_PIECE, left + 1))
            left -= len(part)
            if left < 0:
                raise BatchTooLargeError
            parts.append(part)
            rest = member.unconsumed_tail
            if not part and not rest and not member.eof:
                raise EOFError("it is cut off")
        rest = member.unused_data.lstrip(b"\0")  # padding is allowed
    return b"".join(parts)


def _cramjam(unpack_into: Callable[[memoryview, Any], int]) -> Callable[[memoryview, int], bytes]:
    def unpack(packed: memoryview, most: int) -> bytes:
        room = min(most, max(_FIRST, 8 * len(packed)))
        while True:
            out = np.empty(room, np.uint8)  # takes memory only as far as it is written
            try:
                return out[: unpack_into(packed, out)].tobytes()
            except cramjam.DecompressionError as error:
                if _FULL not in str(error):
                    raise
            if room == most:
                raise BatchTooLargeError
            room = min(most, 8 * room)

    return unpack


def _snappy(packed: memoryview, most: int) -> bytes:
    """Each block says how much it holds; cramjam goes by that, and refuses one that holds something else."""
    parts, left = [], most
    for block in _blocks(packed):
        left -= cramjam.snappy.decompress_raw_len(block)
        if left < 0:
            raise BatchTooLargeError
        parts.append(bytes(cramjam.snappy.decompress_raw(block)))
    return b"".join(parts)


def _blocks(packed: memoryview) -> list[memoryview]:
    if packed[: len(_XERIAL)] != _XERIAL:
        return [packed]
    blocks, at = [], _XERIAL_HEADER
    while at < len(packed):
        (size,) = struct.unpack_from(">i", packed, at)
        at += 4
        if not 0 < size <= len(packed) - at:
            raise EOFError("it is cut off")
        blocks.append(packed[at : at + size])
        at += size
    return blocks


_CODECS = {
    "gzip": _bounded("gzip", _gzip),
    "snappy": _bounded("snappy", _snappy),
    "lz4": _bounded("lz4", _cramjam(cramjam.lz4.decompress_into)),
    "zstd": _bounded("zstd", _cramjam(cramjam.zstd.decompress_into)),
}


# -- what can't be read


class _Batches:
    """The batches of a fetch, one after another; `current` is the one in hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records = MemoryRecords(data)
        self._taken = 0
        self.has_next: Callable[[], bool] = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes
        self.current: Any = None

    def next_batch(self) -> Any:
        self.current = None
        self.current = self._records.next_batch()
        self._taken += 1
        return self.current

    def records(self) -> int:
        """How many records the batch in hand has by its own head, for batches of the present format."""
        at = 0
        for _ in range(self._taken - 1):
            at += _LENGTH_END + struct.unpack_from(">i", self._data, at + _LENGTH_AT)[0]
        count: int = struct.unpack_from(">i", self._data, at + _COUNT_AT)[0]
        return count


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka's types are not followed
    """aiokafka's iterator over one partition's part of a fetch, which does not end at a batch that can't be read."""

    next_fetch_offset: int

    def __init__(self, tp: TopicPartition, records: _Batches, *rest: Any) -> None:
        super().__init__(tp, records, *rest)
        more = records.has_next
        # What is left of a fetch when the turn has had its share is fetched again.
        records.has_next = lambda: more() and _spent - _spent_before < _max_bytes

    def __next__(self) -> ConsumerRecord:
        try:
            return super().__next__()
        except (StopIteration, MemoryError):
            raise
        except Exception as error:
            batch = self._records.current
            if batch is None:  # not even its head: where the next one begins is unknown
                raise
            damaged = "Invalid CRC" in str(error)
            if damaged and self._again():
                raise StopIteration from None  # aiokafka asks once more for what is at this position
            return self._pass_over(batch, error, damaged=damaged)

    def _again(self) -> bool:
        at = self.next_fetch_offset
        before, times = _damaged.get(self._tp, (at, 0))
        times = times + 1 if before == at else 1
        _damaged[self._tp] = (at, times)
        return times < _FETCHES

    def _pass_over(self, batch: Any, error: Exception, *, damaged: bool) -> Unreadable:
        end = batch.next_offset
        if damaged and hasattr(batch, "base_offset"):  # what is wrong may be the head: then no farther than both say
            end = min(end, batch.base_offset + self._records.records())
        _damaged.pop(self._tp, None)
        first = max(getattr(batch, "base_offset", 0), self.next_fetch_offset)
        end = max(end, first + 1)
        self.next_fetch_offset = end
        self._records_iterator = self._unpack_records()  # an error ends a generator
        large = isinstance(error, BatchTooLargeError)
        now = int(time.time() * 1000)
        sent = getattr(batch, "max_timestamp", now)
        return Unreadable(
            self._tp.topic,
            self._tp.partition,
            end - 1,
            sent if 0 <= sent <= now else now,
            timestamp_type=0,
            key=None,
            value=None,
            checksum=None,
            serialized_key_size=-1,
            serialized_value_size=-1,
            headers=(),
            first=first,
            reason=Reason.BATCH_TOO_LARGE if large else Reason.BATCH_CORRUPT,
            detail=f"offsets {first} to {end - 1}: {'its checksum is wrong' if damaged else _words(error)}",
        )


def _words(error: Exception) -> str:
    if isinstance(error, KafkaError | BatchTooLargeError) and error.args:
        return str(error.args[0])  # without the number and name that aiokafka puts before it
    return f"{type(error).__name__}: {error}"
