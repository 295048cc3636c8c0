"""Record batches as bytes, also such as no client would write, and a way to get them into a topic."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c, encode_varint

from stream_gru.kafka import aiokafka_options
from stream_gru.settings import Settings

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
MIB = 1 << 20
NOW = 1_750_000_000_000


def batch(codec: int, values: Sequence[bytes], base: int = 0, timestamp: int = NOW) -> bytearray:
    """A record batch as it lies in a log, at the offset `base`."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for i, value in enumerate(values):
        builder.append(i, timestamp, b"key", value, [])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    return data


def sealed(data: bytearray) -> bytearray:
    """With the checksum of what is in it now."""
    struct.pack_into(">i", data, 8, len(data) - 12)
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return data


def packed(codec: int, body: bytes, records: int = 1, base: int = 0, timestamp: int = NOW) -> bytearray:
    """A batch whose records are these packed bytes, whatever they are."""
    data = batch(0, [b""] * records, base, timestamp)[:61]
    struct.pack_into(">h", data, 21, codec)
    return sealed(data + body)


def gzip_bomb(mib: int, timestamp: int = NOW) -> bytearray:
    """A batch of one record with so many MiB of zeros in it."""
    inner = bytearray(b"\0\0\0\1")  # attributes, times, offset, no key
    encode_varint(mib * MIB, inner.append)
    head = bytearray()
    encode_varint(len(inner) + mib * MIB + 1, head.append)
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(head + inner), *(packer.compress(bytes(MIB)) for _ in range(mib)), packer.compress(b"\0")]
    return packed(1, b"".join(parts) + packer.flush(), timestamp=timestamp)


class _Builder:
    """What aiokafka's producer asks of a batch."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def _build(self) -> bytes:
        return self._data

    def record_count(self) -> int:
        return int(struct.unpack_from(">i", self._data, 57)[0])

    def closed(self) -> bool:
        return True


async def put(settings: Settings, *batches: bytes | bytearray, partition: int = 0) -> None:
    """Send batches of readings as they are."""
    async with AIOKafkaProducer(**aiokafka_options(settings.kafka)) as producer:
        for data in batches:
            builder: Any = _Builder(bytes(data))
            await (await producer.send_batch(builder, settings.topics.readings[0], partition=partition))
