"""Workers as processes on real servers, and the CHECK that every fault test ends with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream_gru import codecs, stores
from stream_gru.batch import Readings
from stream_gru.engine import Engine
from stream_gru.kafka import aiokafka_options
from stream_gru.settings import Settings, environment
from stream_gru.stores import PartitionId
from stream_gru.tools.processes import Child, wait_until
from stream_gru.worker.cluster import Cluster

CLOSE = 1e-6  # of outputs, relative to max(1, |y|)
STATE_CLOSE = 1e-5
NEAR_THRESHOLD = 1e-5


@dataclass
class Crew:
    """Some workers with the same settings, each a process of its own."""

    settings: Settings
    folder: Path
    workers: dict[str, Child] = field(default_factory=dict)

    def start(self, name: str, instance: str | None = None) -> Child:
        """Start or start again the worker of this name; with static membership, as the same member or as `instance`."""
        kafka = self.settings.kafka
        if kafka.group_instance_id:
            member = f"{kafka.group_instance_id}-{instance or name}"
            kafka = kafka.model_copy(update={"group_instance_id": member})
        scorer = self.settings.model_copy(update={"role": "scorer", "kafka": kafka})
        command = [sys.executable, "-m", "stream_gru", "worker"]
        self.workers[name] = Child(command, self.folder / f"{name}.log", environment(scorer))
        return self.workers[name]

    def log(self, name: str) -> str:
        """What the worker has printed over all its lives."""
        return (self.folder / f"{name}.log").read_text("utf-8")

    def stop(self) -> dict[str, int]:
        """SIGTERM to all; the return codes."""
        return {name: worker.stop() for name, worker in self.workers.items()}


@contextmanager
def crew(settings: Settings, folder: Path, *names: str) -> Iterator[Crew]:
    """Workers that are gone at the end whatever happens."""
    made = Crew(settings, folder)
    try:
        for name in names:
            made.start(name)
        yield made
    finally:
        for worker in made.workers.values():
            worker.kill()


class Load:
    """Numbered readings of some series: a cycle, noise, spikes, and now and then something that is none."""

    def __init__(self, settings: Settings, series: int, *, seed: int = 0) -> None:
        self._settings = settings
        self._series = series
        self._rng = np.random.default_rng(seed)
        self._start = int(time.time() * 1000) - 3_600_000
        self.sent = 0

    async def send(self, n: int, rate: float | None = None) -> None:
        """Send `n` more, at `rate` a second or as fast as it goes."""
        topic = self._settings.topics.readings[0]
        producer = AIOKafkaProducer(**aiokafka_options(self._settings.kafka), linger_ms=5, max_batch_size=1 << 18)
        await producer.start()
        try:
            began, first = time.perf_counter(), self.sent
            futures = []
            while self.sent < first + n:
                futures.append(await producer.send(topic, key=self._key(), value=self._payload()))
                self.sent += 1
                if rate and self.sent % 50 == 0:
                    await asyncio.sleep(max(0.0, began + (self.sent - first) / rate - time.perf_counter()))
            await asyncio.gather(*futures)
        finally:
            await producer.stop()

    def _key(self) -> bytes:
        return b"sensor-%05d" % (self.sent % self._series)

    def _payload(self) -> bytes:
        tick, draw = self.sent // self._series, self._rng.random()
        if draw < 0.002:
            return b'{"timestamp": "yesterday", "value": 1}'
        if draw < 0.004:
            return b'{"timestamp": %d, "value": null}' % (self._start + tick * 1000)
        value = 20 + 5 * np.sin(tick / 8 + self.sent % self._series) + self._rng.normal(0, 0.3)
        value += 30 * (draw > 0.995)
        late = 5000 if 0.004 < draw < 0.006 else 0
        return json.dumps({"timestamp": self._start + tick * 1000 - late, "value": round(value, 4)}).encode()


async def read(settings: Settings, *topics: str) -> list[Any]:
    """Every record of `topics` that is there now."""
    consumer = AIOKafkaConsumer(**aiokafka_options(settings.kafka), auto_offset_reset="earliest")
    await consumer.start()
    try:
        parts = await partitions(settings, topics)
        consumer.assign(parts)
        ends = {tp: end for tp, end in (await consumer.end_offsets(parts)).items() if end}
        records: list[Any] = []
        deadline = time.monotonic() + 60
        while any([(await consumer.position(tp)) < end for tp, end in ends.items()]) and time.monotonic() < deadline:
            for some in (await consumer.getmany(timeout_ms=1000)).values():
                records += some
        return records
    finally:
        await consumer.stop()


async def partitions(settings: Settings, topics: Sequence[str]) -> list[TopicPartition]:
    """All partitions of `topics`."""
    cluster = await Cluster.connect(settings.kafka)
    try:
        found = await cluster.topics(topics)
        return [TopicPartition(name, p) for name in topics for p in range(found[name].partitions)]
    finally:
        await cluster.close()


async def end_offsets(settings: Settings) -> dict[TopicPartition, int]:
    """Where the logs of the readings end."""
    consumer = AIOKafkaConsumer(**aiokafka_options(settings.kafka))
    await consumer.start()
    try:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(
            await partitions(settings, settings.topics.readings)
        )
        return ends
    finally:
        await consumer.stop()


async def stored_offsets(settings: Settings) -> dict[TopicPartition, int]:
    """The group's commits, which follow the stored offsets."""
    cluster = await Cluster.connect(settings.kafka)
    try:
        parts = list(await end_offsets(settings))
        with contextlib.suppress(KafkaError):  # a fresh broker has no coordinator until a group needs it
            return {tp: c.offset for tp, c in (await cluster.commits(settings.kafka.group_id, parts)).items()}
        return {}
    finally:
        await cluster.close()


async def drained(settings: Settings, worker: Child, timeout_s: float = 60) -> None:
    """Wait until everything is scored and checkpointed."""
    deadline = time.monotonic() + timeout_s
    while True:
        ends = {tp: end for tp, end in (await end_offsets(settings)).items() if end}
        commits = await stored_offsets(settings)
        if all(commits.get(tp) == end for tp, end in ends.items()):
            return
        if worker.returncode is not None or time.monotonic() > deadline:
            pytest.fail(f"not drained: {commits} of {ends}\n{worker.tail(40)}")
        await asyncio.sleep(0.3)


@dataclass
class Checked:
    """What a CHECK counted."""

    inputs: int
    outputs: int
    dead: int
    duplicates: int


async def check(settings: Settings) -> Checked:
    """Nothing lost, duplicates agree, states are those of one process that reads the log once. Stop the workers."""
    inputs = await read(settings, *settings.topics.readings)
    outputs = await read(settings, settings.topics.forecasts)
    dead = await read(settings, settings.topics.dead_letters)
    seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in outputs:
        parsed = json.loads(record.value)
        seen[parsed["id"]].append(parsed)
        assert parsed["id"].rsplit("-", 2)[1] == str(record.partition)
        assert parsed["series"].encode() == record.key
    letters = [json.loads(record.value) for record in dead]
    buried = {letter["id"] for letter in letters}
    # A batch that nobody can read is one dead letter; whoever reads the log gets one record in its place, at its end.
    passed = {f"{x['topic']}-{x['partition']}-{x['last_offset']}": x["id"] for x in letters if "last_offset" in x}
    wanted = {passed.get(id_, id_) for id_ in (f"{r.topic}-{r.partition}-{r.offset}" for r in inputs)}
    assert wanted == seen.keys() | buried, f"{len(wanted - seen.keys() - buried)} of {len(wanted)} have no output"
    assert not seen.keys() & buried
    for copies in seen.values():
        for other in copies[1:]:
            _agree(copies[0], other)
    await states(settings, inputs)
    return Checked(len(inputs), len(outputs), len(dead), len(outputs) + len(dead) - len(wanted))


def _agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    scale = max(1.0, abs(one["y"] or 0))
    for name in ("y", "yhat", "yhat_lower", "yhat_upper"):
        assert _close(one[name], other[name], CLOSE * scale), (name, one, other)
    assert _close(one["anomaly_score"], other["anomaly_score"], 1e-4)
    if one["anomaly_score"] is None or abs(one["anomaly_score"] - 1) > NEAR_THRESHOLD:
        assert (one["is_anomaly"], one["level"]) == (other["is_anomaly"], other["level"])


def _close(a: float | None, b: float | None, tolerance: float) -> bool:
    return a == b if a is None or b is None else abs(a - b) <= tolerance


async def states(settings: Settings, inputs: Sequence[Any]) -> None:
    """Every row in the store is the one that an oracle computes, and every stored offset is the log's end."""
    engine = Engine(
        settings.model.bundle,
        features=settings.input.values,
        detector=settings.detector,
        gaps=settings.gaps,
        device="cpu",
    )
    codec = codecs.load(settings.input, (1, *engine.bundle.horizons))
    store = stores.connect(settings.state.url.get_secret_value(), buckets=settings.state.buckets, timeout_s=10)
    await store.open()
    by_partition: dict[TopicPartition, list[Any]] = defaultdict(list)
    for record in inputs:
        by_partition[TopicPartition(record.topic, record.partition)].append(record)
    try:
        for handle, (tp, records) in enumerate(sorted(by_partition.items())):
            oracle = _oracle(engine, codec, handle, sorted(records, key=lambda record: record.offset))
            at = PartitionId(settings.kafka.group_id, tp.topic, tp.partition)
            owner = f"check{time.time_ns():027d}"
            identity = stores.Identity("", 0, settings.state.buckets, "", "")
            assigned = await store.assign(at, owner, identity)
            assert assigned.offset == records[-1].offset + 1
            rows = {key: row async for some in store.restore(at, owner, 0) for key, row in some}
            assert rows.keys() == oracle.keys()
            mine = engine.layout.parse([rows[key] for key in sorted(rows)])
            theirs = engine.layout.parse([oracle[key] for key in sorted(oracle)])
            for name in ("offset", "timestamp", "interval", "made"):
                np.testing.assert_array_equal(mine[name], theirs[name])
            for name in engine.layout.fields:
                a, b = mine["body"][name], theirs["body"][name]
                np.testing.assert_allclose(a, b, rtol=STATE_CLOSE, atol=STATE_CLOSE, err_msg=name)
    finally:
        await store.close()


def _oracle(engine: Engine, codec: codecs.Codec, handle: int, records: Sequence[Any]) -> dict[bytes, bytes]:
    engine.arena.open(handle)
    for start in range(0, len(records), 4096):
        some = records[start : start + 4096]
        timestamps = np.array([r.timestamp for r in some])
        decoded = codec.decode([r.key for r in some], [r.value for r in some], timestamps)
        good = np.array([i for i in range(len(some)) if i not in decoded.bad], np.int64)
        offsets = np.array([r.offset for r in some])
        slots = engine.arena.admit(handle, [decoded.series[i] for i in good])
        engine.step(Readings(slots, offsets[good], decoded.timestamp[good], decoded.value[good]))
    cut = engine.arena.cut(handle)
    return {key: row for some in cut.chunks(1000) for key, row in zip(*some, strict=True)}


__all__ = [
    "Checked",
    "Crew",
    "Load",
    "check",
    "crew",
    "drained",
    "end_offsets",
    "read",
    "states",
    "stored_offsets",
    "wait_until",
]
