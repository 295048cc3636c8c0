"""Compressed, damaged and oversized record batches, and dead letters that are too large, on real servers."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from stream_gru.kafka import aiokafka_options, tail, unpacking
from stream_gru.records.dead_letters import Reason
from stream_gru.settings import Input, Settings
from stream_gru.tools.embedded import KafkaServer
from stream_gru.tools.processes import Child
from stream_gru.training import data
from tests.support import raw_batches as raw
from tests.support.check import check
from tests.support.progress import drained
from tests.support.reading import read
from tests.support.waiting import eventually
from tests.support.workers import crew
from tests.support.writing import NOW, reading


async def produce(settings: Settings, codec: str | None, values: Sequence[bytes]) -> None:
    """One batch of readings of the series `s` to partition 0."""
    options = {**aiokafka_options(settings.kafka), "compression_type": codec, "max_batch_size": 1 << 20}
    async with AIOKafkaProducer(**options) as producer:
        batch = producer.create_batch()
        for value in values:
            assert batch.append(timestamp=NOW, key=b"s", value=value) is not None
        await (await producer.send_batch(batch, settings.topics.readings[0], partition=0))


def readings(n: int, start: int = 0) -> list[bytes]:
    return [reading(float(i), NOW + 1000 * i) for i in range(start, start + n)]


def peak(worker: Child) -> int:
    """The most memory that a process had so far, bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text("ascii"))
    assert found
    return int(found[1]) * 1024


async def dead(settings: Settings) -> list[dict[str, Any]]:
    letters = [json.loads(record.value) for record in await read(settings, settings.topics.dead_letters)]
    return sorted(letters, key=lambda letter: int(letter["offset"]))


async def test_every_codec_comes_in_and_goes_out(
    make_settings: Callable[[int], Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(1)
    for i, codec in enumerate([*raw.CODECS, None]):
        await produce(settings, codec, readings(200, 200 * i))
    settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"compression": "zstd"})})
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
    history, progress = await asyncio.to_thread(data.read_topic, settings)
    assert progress == data.TopicProgress(1000, 0)
    np.testing.assert_array_equal(history.series[0].value, np.arange(1000.0))
    unpacked = 0

    def counted(packed: bytes) -> bytes:
        nonlocal unpacked
        unpacked += 1
        return decode(packed)

    decode = unpacking._CODECS["zstd"]
    monkeypatch.setitem(unpacking._CODECS, "zstd", counted)
    shown = [out async for some in tail.read(settings, "forecasts", from_beginning=True, follow=False) for out in some]
    assert [out["y"] for out in shown] == list(range(1000))
    assert unpacked, "the outputs are compressed"
    await check(settings)


async def test_row_24_bombs_are_dead_letters_and_take_no_memory(
    make_settings: Callable[[int], Settings], tmp_path: Path
) -> None:
    settings = make_settings(1).model_copy(update={"input": Input(max_batch_bytes=8 << 20)})
    bomb = raw.gzip_bomb(300, NOW)
    with crew(settings, tmp_path, "a") as workers:
        await produce(settings, "gzip", readings(50))
        await drained(settings, workers.workers["a"])
        before = peak(workers.workers["a"])
        for start in (50, 100):
            await raw.put(settings, bomb)
            await produce(settings, "lz4", readings(50, start))
        await drained(settings, workers.workers["a"])
        assert peak(workers.workers["a"]) - before < 60 << 20
        assert workers.stop() == {"a": 0}
        log = workers.log("a")
    letters = await dead(settings)
    assert [letter["reason"] for letter in letters] == ["batch_too_large"] * 2
    topic = settings.topics.readings[0]
    assert [letter["id"] for letter in letters] == [f"{topic}-0-50", f"{topic}-0-101"]
    assert [letter["last_offset"] for letter in letters] == [50, 101]
    assert letters[0]["detail"].startswith(f"offsets 50 to 50: {len(bomb) - 61} bytes packed with gzip, unpacked more ")
    assert log.count("packed with gzip") == 1, "the first is told aloud, the others are counted"
    checked = await check(settings)
    assert (checked.outputs, checked.dead, checked.duplicates) == (150, 2, 0)


async def test_many_large_batches_within_the_bound_are_taken_a_few_at_a_time(
    make_settings: Callable[[int], Settings], tmp_path: Path
) -> None:
    settings = make_settings(3).model_copy(update={"input": Input(max_batch_bytes=16 << 20)})
    large = [raw.gzip_bomb(15, NOW)] * 10
    with crew(settings, tmp_path, "a") as workers:
        await produce(settings, None, readings(20))
        await drained(settings, workers.workers["a"])
        before = peak(workers.workers["a"])
        await asyncio.gather(*(raw.put(settings, *large, partition=p) for p in range(3)))
        await drained(settings, workers.workers["a"])
        assert peak(workers.workers["a"]) - before < 150 << 20, "of 450 MiB"
        assert workers.stop() == {"a": 0}
    assert [letter["reason"] for letter in await dead(settings)] == ["payload_too_large"] * 30


def spoil(server: KafkaServer, topic: str) -> None:
    """Damage the last three batches in a log of Apache Kafka's: what is packed, the codec, the checksum."""
    log = server.directory / "data" / f"{topic}-0" / f"{0:020d}.log"
    content = bytearray(log.read_bytes())
    at: list[int] = []
    while sum(at[-1:]) < len(content):
        start = at[-1] if at else 0
        at.append(start + 12 + int.from_bytes(content[start + 8 : start + 12], "big"))
    starts = [0, *at][-4:-1]
    for start, stop, damage in zip(starts, at[-3:], ((-1, 7), (22, 1), (-1, 7)), strict=True):
        batch, (place, bits) = content[start:stop], damage
        batch[place] ^= bits
        content[start:stop] = batch if stop == at[-1] else raw.sealed(batch)
    with log.open("r+b") as file:
        file.write(content)


async def test_damaged_batches_are_dead_letters_with_their_range(
    make_settings: Callable[[int], Settings], kafka: KafkaServer, tmp_path: Path
) -> None:
    settings = make_settings(1)
    await produce(settings, "zstd", readings(5))
    if kafka.name == "apache":  # it takes no damaged ones, but a disk may damage them
        for i in range(3):
            await produce(settings, "zstd", readings(4, 5 + 4 * i))
        spoil(kafka, settings.topics.readings[0])
    else:
        await raw.put(settings, *(raw.packed(codec, b"no frame", 4, timestamp=NOW) for codec in (4, 5, 1)))
    await produce(settings, "zstd", readings(5, 17))
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
        assert workers.stop() == {"a": 0}
    letters = await dead(settings)
    assert {letter["reason"] for letter in letters} == {"batch_corrupt"}
    assert [(letter["offset"], letter["last_offset"]) for letter in letters] == [(5, 8), (9, 12), (13, 16)]
    assert letters[1]["detail"].startswith("offsets 9 to 12: Unknown compression codec")
    checked = await check(settings)
    assert (checked.outputs, checked.dead) == (10, 3)


async def test_row_21_poison_alone_makes_progress_where_its_topic_takes_little(
    make_settings: Callable[[int], Settings], tmp_path: Path
) -> None:
    settings = make_settings(1).model_copy(update={"input": Input(dead_letter_bytes=65_536)})
    limits = {settings.topics.dead_letters: 50_000, settings.topics.forecasts: 2_000}
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    for topic, size in limits.items():
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})])
    admin.close()
    noise = random.Random(0)
    large = [noise.randbytes(60_000) for _ in range(100)]
    for start in range(0, 100, 10):
        await produce(settings, None, large[start : start + 10])
    for _ in range(10):
        await produce(settings, None, [b'{"timestamp": "yesterday", "value": 1}'] * 1000)
    await produce(settings, None, readings(100))
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
        assert workers.stop() == {"a": 0}
    letters = await dead(settings)
    assert [letter["offset"] for letter in letters] == list(range(10_100))
    assert {letter["reason"] for letter in letters[:100]} == {Reason.INVALID_JSON}
    assert {letter["reason"] for letter in letters[100:]} == {Reason.INVALID_TIMESTAMP}
    for letter in letters[:100]:
        assert (letter["value"]["length"], letter["value"]["truncated"]) == (60_000, True)
        assert 10_000 < len(letter["value"]["data"]) < 50_000
    checked = await check(settings)
    assert (checked.outputs, checked.dead, checked.duplicates) == (100, 10_100, 0)


async def test_row_21_without_the_dead_letter_topic_the_offset_waits(
    make_settings: Callable[[int], Settings], tmp_path: Path
) -> None:
    settings = make_settings(1)
    name = settings.topics.dead_letters
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    try:
        with crew(settings, tmp_path, "a") as workers:
            worker = workers.workers["a"]
            await produce(settings, None, readings(20))
            await drained(settings, worker)
            admin.delete_topics([name])
            await produce(settings, None, [b"poison", *readings(20, 20)])
            await eventually(lambda: name in workers.log("a"), "it says so", 60)
            admin.create_topics({name: {"num_partitions": 1}})
            await drained(settings, worker, 90)
            assert worker.returncode is None, "the same process"
            assert workers.stop() == {"a": 0}
    finally:
        admin.close()
    assert [letter["offset"] for letter in await dead(settings)] == [20]
    await check(settings)
