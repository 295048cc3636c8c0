"""Batches of every codec are unpacked within bounds, by the modules that aiokafka really uses, and what can't be read
is one range."""

from __future__ import annotations

import asyncio
import gzip
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import aiokafka.codec
import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record import default_records, legacy_records
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

from stream_gru.kafka import unpacking
from stream_gru.kafka.unpacking import Unreadable
from stream_gru.records.dead_letters import Reason
from tests.support.raw_batches import CODECS, MIB, NOW, batch, packed, sealed

TP = TopicPartition("readings", 3)


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    unpacking.install()
    yield
    unpacking.limit(unpacking.MAX_BATCH_BYTES)


def read(*batches: bytes | bytearray, position: int = 0) -> list[Any]:
    """What a consumer at `position` gets of one fetch."""
    records = fetcher.MemoryRecords(b"".join(batches))
    parts = fetcher.PartitionRecords(TP, records, None, position, None, None, True, fetcher.READ_COMMITTED)
    found = list(parts)
    read.position = parts.next_fetch_offset  # type: ignore[attr-defined]
    return found


def frames(codec: str, data: bytes) -> bytes:
    pack: Callable[[bytes], bytes] = getattr(aiokafka.codec, f"{codec}_encode")
    return bytes(pack(data))


def test_the_compiled_modules_are_the_ones_that_are_bounded() -> None:
    for batch_class in (default_records.DefaultRecordBatch, legacy_records.LegacyRecordBatch):
        module = sys.modules[batch_class.__module__]
        assert "_crecords" in module.__name__, "this machine has aiokafka without its extension"
        for codec in CODECS:
            assert getattr(module, f"{codec}_decode", None) in (unpacking._CODECS[codec], None)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1, 1000, 300_000])
def test_every_codec_is_read(codec: str, size: int) -> None:
    values = [bytes([i]) * size for i in range(20)]
    found = read(batch(CODECS[codec], values, base=7), position=7)
    assert [record.value for record in found] == values
    assert [record.offset for record in found] == list(range(7, 27))


@pytest.mark.parametrize("codec", CODECS)
def test_frames_after_one_another_are_one_batch(codec: str) -> None:
    whole = bytes(batch(0, [b"a" * 500, b"b" * 500])[61:])
    if codec == "snappy":  # blocks in the framing of Java's snappy
        blocks = [bytes(cramjam.snappy.compress_raw(part)) for part in (whole[:100], whole[100:])]
        body = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(b)) + b for b in blocks)
    else:
        body = frames(codec, whole[:100]) + frames(codec, whole[100:])
    assert [r.value for r in read(packed(CODECS[codec], body, 2))] == [b"a" * 500, b"b" * 500]


def test_snappy_without_framing_and_gzip_with_padding() -> None:
    whole = bytes(batch(0, [b"a" * 500])[61:])
    for codec, body in ((2, bytes(cramjam.snappy.compress_raw(whole))), (1, gzip.compress(whole) + b"\0" * 8)):
        assert [r.value for r in read(packed(codec, body))] == [b"a" * 500]


@pytest.mark.parametrize("codec", CODECS)
def test_the_bound_is_exact(codec: str) -> None:
    data = batch(CODECS[codec], [b"x" * 3 * MIB])
    size = len(batch(0, [b"x" * 3 * MIB])) - 61
    unpacking.limit(size)
    assert len(read(data)[0].value) == 3 * MIB
    unpacking.limit(size - 1)
    (passed,) = read(data)
    assert (passed.reason, passed.first, passed.offset) == (Reason.BATCH_TOO_LARGE, 0, 0)


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_one_range_and_its_neighbours_are_read(codec: str) -> None:
    unpacking.limit(MIB)
    before, after = batch(CODECS[codec], [b"1", b"2"], base=10), batch(CODECS[codec], [b"3"], base=17)
    bomb = batch(CODECS[codec], [b"\0" * MIB] * 5, base=12)
    found = read(before, bomb, after, position=10)
    assert [r.value for r in found] == [b"1", b"2", None, b"3"]
    assert [r.offset for r in found] == [10, 11, 16, 17]
    passed = found[2]
    assert isinstance(passed, Unreadable)
    assert (passed.topic, passed.partition, passed.first, passed.key, passed.timestamp) == (
        "readings",
        3,
        12,
        None,
        NOW,
    )
    assert passed.detail == (
        f"offsets 12 to 16: {len(bomb) - 61} bytes packed with {codec}, unpacked more than the {MIB} that "
        "input.max_batch_bytes allows"
    )


MEASURE = """
import resource, struct, sys, zlib
import cramjam
from stream_gru.kafka import unpacking

piece, pieces, codec = b"\\0" * (1 << 20), 400, sys.argv[1]
if codec == "gzip":
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join([packer.compress(piece) for _ in range(pieces)]) + packer.flush()
elif codec == "snappy":
    block = bytes(cramjam.snappy.compress_raw(piece))
    bomb = b"\\x82SNAPPY\\0" + struct.pack(">ii", 1, 1) + (struct.pack(">i", len(block)) + block) * pieces
else:
    packer, parts = getattr(cramjam, codec).Compressor(), []
    for _ in range(pieces):
        packer.compress(piece)
        parts.append(bytes(packer.flush()))
    bomb = b"".join(parts) + bytes(packer.finish())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpacking._CODECS[codec](bomb)
except unpacking.BatchTooLargeError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_takes_little_more_memory_than_the_bound(codec: str) -> None:
    # In a process of its own, whose peak nothing else has raised.
    done = subprocess.run([sys.executable, "-c", MEASURE, codec], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150 * 1024, "KiB, for 64 MiB"


DAMAGED: dict[str, tuple[int, bytes]] = {
    "gzip, garbage": (1, b"no gzip at all"),
    "gzip, cut off": (1, gzip.compress(b"x" * 1000)[:-12]),
    "gzip, empty": (1, b""),
    "gzip, wrong sum": (1, gzip.compress(b"x" * 1000)[:-8] + b"\0" * 8),
    "snappy, garbage": (2, b"\xff\xff\xff\xff\xff\xff\xff"),
    "snappy, says another size": (2, b"\x7f" + bytes(cramjam.snappy.compress_raw(b"x" * 1000))[2:]),
    "snappy, cut off": (2, b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, 4000) + b"x"),
    "snappy, a negative block": (2, b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, -4) + b"x"),
    "lz4, garbage": (3, b"no lz4 at all"),
    "lz4, cut off": (3, bytes(cramjam.lz4.compress(b"x" * 1000))[:-5]),
    "zstd, garbage": (4, b"no zstd at all"),
    "zstd, cut off": (4, bytes(cramjam.zstd.compress(b"x" * 1000))[:-5]),
    "unknown codec": (5, b"x" * 100),
    "unpacked, garbage": (0, b"\xff" * 40),
    "packed garbage": (1, gzip.compress(b"\xff" * 40)),
    "more than its records": (1, gzip.compress(bytes(batch(0, [b"a"])[61:]) + b"more")),
    "a header that is no text": (0, b"\x10\x00\x00\x00\x01\x01\x02\x02\xff\x01"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_batch_that_is_not_what_it_says_is_one_range(name: str) -> None:
    codec, body = DAMAGED[name]
    broken = packed(codec, body, 4, base=5)
    found = read(batch(0, [b"a"], base=4), broken, batch(4, [b"z"], base=9), position=4)
    passed = next(r for r in found if isinstance(r, Unreadable))
    assert (found[0].value, found[-1].value) == (b"a", b"z")
    assert (passed.reason, passed.offset) == (Reason.BATCH_CORRUPT, 8)
    assert passed.first == (6 if name == "more than its records" else 5)
    assert passed.detail.startswith(f"offsets {passed.first} to 8: ")


def test_what_was_read_of_a_batch_before_its_damage_counts() -> None:
    whole = batch(0, [b"one", b"two", b"three"], base=30)
    whole[-7] ^= 0xFF  # how long the last value is
    found = read(sealed(whole), position=30)
    assert [(r.offset, r.value) for r in found[:2]] == [(30, b"one"), (31, b"two")]
    assert [(r.first, r.offset) for r in found[2:]] == [(32, 32)]
    assert [(r.first, r.offset) for r in read(whole, position=32)] == [(32, 32)], "and again after a restart"


def test_a_wrong_checksum_is_fetched_again_before_it_is_passed_over() -> None:
    broken = batch(4, [b"a", b"b"], base=40)
    broken[-1] ^= 0xFF
    good = batch(4, [b"0"], base=39)
    after = batch(4, [b"c"], base=42)
    assert [r.offset for r in read(good, broken, after, position=39)] == [39]
    assert read.position == 40  # type: ignore[attr-defined]
    assert read(broken, after, position=40) == []
    found = read(broken, after, position=40)
    assert [(r.offset, r.value) for r in found] == [(41, None), (42, b"c")]
    assert (found[0].first, found[0].detail) == (40, "offsets 40 to 41: its checksum is wrong")
    mended = batch(4, [b"a", b"b"], base=50)
    assert read(broken[:0], bytes(mended)[:-1] + b"\xff", position=50) == []
    assert [r.value for r in read(mended, position=50)] == [b"a", b"b"], "it was damaged on its way only"


@pytest.mark.parametrize("delta", [-5, 1_000_000_000])
def test_a_damaged_head_leads_nowhere(delta: int) -> None:
    broken = batch(0, [b"a", b"b"], base=60)
    struct.pack_into(">i", broken, 23, delta)
    found = [record for _ in range(3) for record in read(broken, position=60)]
    (passed,) = found
    assert passed.first == 60
    assert passed.offset in (60, 61)


async def test_many_batches_just_within_the_bound_are_read_a_few_in_a_turn_of_the_loop() -> None:
    unpacking.limit(MIB)
    batches = [batch(1, [b"x" * (MIB - 100)], base=i) for i in range(6)]
    before = unpacking.spent()
    for at in (0, 2, 4):
        found = read(*batches[at:], position=at)
        assert [record.offset for record in found] == [at, at + 1], "the bound is reached with the second one"
        assert read(*batches[at + 2 :], position=at + 2) == [], "nothing more in this turn"
        await asyncio.sleep(0)
    assert unpacking.spent() - before > 5.9 * MIB


def test_a_batch_of_the_old_format() -> None:
    def old(value: bytes) -> bytes:
        builder = LegacyRecordBatchBuilder(1, 1, 1 << 30)
        for i in range(3):
            builder.append(i, NOW, b"key", value)
        return bytes(builder.build())

    assert [r.value for r in read(old(b"x"))] == [b"x"] * 3
    unpacking.limit(MIB)
    (passed,) = read(old(b"\0" * MIB))
    assert (passed.reason, passed.offset) == (Reason.BATCH_TOO_LARGE, passed.offset)


def test_what_is_decoded_has_the_errors_of_aiokafka() -> None:
    with pytest.raises(CorruptRecordException, match="can't be unpacked with gzip"):
        unpacking._CODECS["gzip"](zlib.compress(b"no gzip"))
