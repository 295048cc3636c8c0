"""Workers as processes on real servers, and a load for them. What must hold in the end is in `tests.support.check`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream_gru.errors import StreamGruError
from stream_gru.kafka import aiokafka_options
from stream_gru.kafka.cluster import Cluster
from stream_gru.settings import Settings, environment
from stream_gru.tools.embedded import free_port
from stream_gru.tools.processes import Child, wait_until
from tests.support.check import (
    NEAR_THRESHOLD,
    OUTPUT_CLOSE,
    STATE_CLOSE,
    Checked,
    Deviations,
    check,
    each,
    partitions,
    states,
)
from tests.support.forked import Worker, work

WORKER = ("-m", "stream_gru", "worker")
_GRACE_S = 20.0  # for a stop; how long it may take is checked by the tests that are about it
Role = Literal["all", "scorer", "alerter"]


@dataclass
class Crew:
    """Some workers with the same settings, each a process of its own."""

    settings: Settings
    folder: Path
    role: Role = "scorer"
    forked: bool = True  # not each of them a Python that starts from nothing
    workers: dict[str, Child] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)  # of /ready

    def start(
        self,
        name: str,
        *,
        role: Role | None = None,
        settings: Settings | None = None,
        main: Callable[[], None] | None = None,
        instance: str | None = None,
        **variables: str,
    ) -> Child:
        """Start or start again the worker of this name; with static membership, as the same member or as `instance`.

        It may differ from the others: in its settings, in what it does (always in a fork), in environment variables.
        """
        if name in self.workers:
            self.workers[name].kill()
        chosen = settings or self.settings
        kafka, metrics = chosen.kafka, chosen.metrics
        if kafka.group_instance_id:
            kafka = kafka.model_copy(update={"group_instance_id": f"{kafka.group_instance_id}-{instance or name}"})
        self.ports[name] = metrics.port or free_port()
        metrics = metrics.model_copy(update={"port": self.ports[name]})
        update = {"role": role or self.role, "kafka": kafka, "metrics": metrics}
        around = {**environment(chosen.model_copy(update=update)), **variables}
        log = self.folder / f"{name}.log"
        forked = self.forked or main is not None
        worker = Worker(log, around, main or work) if forked else Child([sys.executable, *WORKER], log, around)
        self.workers[name] = worker
        return worker

    def log(self, name: str) -> str:
        """What the worker has printed over all its lives."""
        return (self.folder / f"{name}.log").read_text("utf-8", errors="replace")

    def ready(self, name: str) -> tuple[bool, dict[str, str]]:
        """Whether /ready answers 200, and the parts that it names."""
        try:
            url = f"http://127.0.0.1:{self.ports[name]}/ready"
            with urllib.request.urlopen(url, timeout=3) as answer:
                return True, json.load(answer)["parts"]
        except urllib.error.HTTPError as error:
            return False, json.load(error)["parts"]
        except OSError as error:
            return False, {"process": f"does not answer: {error}"}

    async def share(self, *names: str, partitions: int) -> None:
        """Wait until each of them has so many partitions: until then somebody is still on the way into the group."""
        deadline = time.monotonic() + 60
        for name in names:
            while (owned := await asyncio.to_thread(self._owned, name)) != partitions:
                assert time.monotonic() < deadline, f"{name} owns {owned}\n{self.workers[name].tail()}"
                await asyncio.sleep(0.1)

    def _owned(self, name: str) -> float | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=3) as answer:
                found = re.search(rb"^stream_gru_reader_partitions (\S+)$", answer.read(), re.MULTILINE)
        except OSError:
            return None
        return float(found[1]) if found else None

    async def listens(self, name: str) -> None:
        """Wait until it answers at all: a SIGTERM before that finds no handler."""
        worker, deadline = self.workers[name], time.monotonic() + 60
        while "process" in (await asyncio.to_thread(self.ready, name))[1]:
            assert worker.returncode is None, f"{name} ended with code {worker.returncode}\n{worker.tail()}"
            assert time.monotonic() < deadline, f"{name} does not listen\n{worker.tail()}"
            await asyncio.sleep(0.1)

    def stop(self) -> dict[str, int]:
        """SIGTERM to all; the return codes."""
        for worker in self.workers.values():
            worker.send_signal(signal.SIGTERM)
        return {name: _ended(worker) for name, worker in self.workers.items()}


def _ended(worker: Child) -> int:
    try:
        return worker.wait(_GRACE_S)
    except StreamGruError:
        return worker.kill()


@contextmanager
def crew(settings: Settings, folder: Path, *names: str, role: Role = "scorer", forked: bool = True) -> Iterator[Crew]:
    """Workers that are gone at the end whatever happens."""
    made = Crew(settings, folder, role, forked)
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
        self.clock_ms = 0  # how far the clock of the readings is off

    async def send(self, n: int, rate: float | None = None) -> None:
        """Send `n` more, at `rate` a second or as fast as it goes."""
        topic = self._settings.topics.readings[0]
        producer = AIOKafkaProducer(**aiokafka_options(self._settings.kafka), linger_ms=5, max_batch_size=1 << 18)
        await producer.start()
        try:
            began, first = time.perf_counter(), self.sent
            futures = []
            while self.sent < first + n:
                futures.append(await producer.send(topic, **self.next()))
                if rate and self.sent % 50 == 0:
                    await asyncio.sleep(max(0.0, began + (self.sent - first) / rate - time.perf_counter()))
            await asyncio.gather(*futures)
        finally:
            await producer.stop()

    @contextlib.asynccontextmanager
    async def flowing(self, rate: float) -> AsyncIterator[None]:
        """Readings keep coming meanwhile; each of them is sent, and once."""
        flowing = True

        async def flow() -> None:
            while flowing:
                await self.send(max(1, int(rate / 4)), rate)

        task = asyncio.create_task(flow())
        try:
            yield
        finally:
            flowing = False
            await task

    async def flow(self, rate: float, producer_settings: Settings | None = None) -> None:
        """Send `rate` a second until cancelled, through whatever happens to Kafka.

        What an outage leaves unsent is lost, or sent twice: the log says what the readings are.
        """
        topic = self._settings.topics.readings[0]
        options = aiokafka_options((producer_settings or self._settings).kafka)
        while True:
            producer = AIOKafkaProducer(**options, linger_ms=5)
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                try:
                    await producer.start()
                    due = time.monotonic()
                    while True:
                        due = max(due + 0.1, time.monotonic() - 1)
                        async with asyncio.timeout(30):
                            sent = [await producer.send(topic, **self.next()) for _ in range(max(1, int(rate / 10)))]
                            await asyncio.gather(*sent)
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                finally:
                    with contextlib.suppress(KafkaError, OSError, TimeoutError):
                        await asyncio.wait_for(producer.stop(), 5)
            await asyncio.sleep(0.5)

    def next(self) -> dict[str, bytes]:
        """Key and value of the next reading."""
        record = {"key": self._key(), "value": self._payload()}
        self.sent += 1
        return record

    def _key(self) -> bytes:
        return b"sensor-%05d" % (self.sent % self._series)

    def _payload(self) -> bytes:
        tick, draw = self.sent // self._series, self._rng.random()
        start = self._start + self.clock_ms
        if draw < 0.002:
            return b'{"timestamp": "yesterday", "value": 1}'
        if draw < 0.004:
            return b'{"timestamp": %d, "value": null}' % (start + tick * 1000)
        value = 20 + 5 * np.sin(tick / 8 + self.sent % self._series) + self._rng.normal(0, 0.3)
        value += 30 * (draw > 0.995)
        late = 5000 if 0.004 < draw < 0.006 else 0
        return json.dumps({"timestamp": start + tick * 1000 - late, "value": round(value, 4)}).encode()


async def read(settings: Settings, *topics: str) -> list[Any]:
    """Every record of `topics` that is there now."""
    return [record async for record in each(settings, *topics)]


@dataclass
class Progress:
    """How far the readings go and how far the group has come, asked over connections that are kept."""

    settings: Settings
    _consumer: AIOKafkaConsumer
    _cluster: Cluster
    _partitions: list[TopicPartition]

    async def ends(self) -> dict[TopicPartition, int]:
        """Where the logs of the readings end."""
        ends: dict[TopicPartition, int] = await self._consumer.end_offsets(self._partitions)
        return ends

    async def commits(self) -> dict[TopicPartition, int]:
        """The group's commits, which follow the stored offsets."""
        with contextlib.suppress(KafkaError):  # a fresh broker has no coordinator until a group needs it
            found = await self._cluster.commits(self.settings.kafka.group_id, self._partitions)
            return {tp: commit.offset for tp, commit in found.items()}
        return {}

    async def reached(self, ends: dict[TopicPartition, int]) -> bool:
        """Whether everything below `ends` is scored and checkpointed."""
        commits = await self.commits()
        return all(commits.get(tp, 0) >= end for tp, end in ends.items())


@contextlib.asynccontextmanager
async def progress(settings: Settings) -> AsyncIterator[Progress]:
    """Connect to ask for it."""
    parts = await partitions(settings, settings.topics.readings)
    cluster = await Cluster.connect(settings.kafka)
    try:
        async with AIOKafkaConsumer(**aiokafka_options(settings.kafka)) as consumer:
            yield Progress(settings, consumer, cluster, parts)
    finally:
        await cluster.close()


@dataclass
class Stalls:
    """How long partitions with something to read stood still."""

    worst: float = 0.0
    where: str = ""
    _moved: dict[TopicPartition, tuple[int, float]] = field(default_factory=dict)

    def look(self, ends: dict[TopicPartition, int], commits: dict[TopicPartition, int], now: float) -> None:
        """Take down where everything is."""
        for tp, end in ends.items():
            commit = commits.get(tp, 0)
            before, since = self._moved.get(tp, (-1, now))
            if commit != before or commit >= end:
                self._moved[tp] = (commit, now)
            elif now - since > self.worst:
                self.worst, self.where = now - since, f"{tp.topic}-{tp.partition} at {commit} of {end}"


@contextlib.asynccontextmanager
async def stalls(settings: Settings) -> AsyncIterator[Stalls]:
    """Watch the group while something else happens; Kafka must be there."""
    watched = Stalls()

    async def watch(asked: Progress) -> None:
        while True:
            watched.look(await asked.ends(), await asked.commits(), time.monotonic())
            await asyncio.sleep(0.2)

    async with progress(settings) as asked:
        watching = asyncio.create_task(watch(asked))
        try:
            yield watched
            if watching.done():
                watching.result()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def end_offsets(settings: Settings) -> dict[TopicPartition, int]:
    """Where the logs of the readings end."""
    async with progress(settings) as asked:
        ends: dict[TopicPartition, int] = await asked.ends()
        return ends


async def stored_offsets(settings: Settings) -> dict[TopicPartition, int]:
    """The group's commits, which follow the stored offsets."""
    async with progress(settings) as asked:
        commits: dict[TopicPartition, int] = await asked.commits()
        return commits


async def drained(settings: Settings, worker: Child, timeout_s: float = 60) -> None:
    """Wait until everything is scored and checkpointed."""
    deadline = time.monotonic() + timeout_s
    async with progress(settings) as asked:
        ends = await asked.ends()
        while not await asked.reached(ends):
            if worker.returncode is not None or time.monotonic() > deadline:
                pytest.fail(f"not drained: {await asked.commits()} of {ends}\n{worker.tail(40)}")
            await asyncio.sleep(0.1)
            ends = await asked.ends()


async def scores(direct: Settings, within_s: float) -> float:
    """How long it took until everything that is there now was scored and stored."""
    began = time.monotonic()
    async with progress(direct) as asked:
        ends = await asked.ends()
        while not await asked.reached(ends):
            assert time.monotonic() - began < within_s, f"{await asked.commits()} of {ends}"
            await asyncio.sleep(0.1)
    return time.monotonic() - began


@contextlib.asynccontextmanager
async def loaded(
    workers: Crew, direct: Settings, *names: str, series: int = 500, rate: float = 600
) -> AsyncIterator[Load]:
    """Readings flow to workers that have started; at the end everything is scored and everybody stops well.

    `direct` is how we reach the servers, past any proxy of the workers.
    """
    load = Load(direct, series)
    await load.send(2 * series)
    for name in names:
        workers.start(name)
    await drained(direct, workers.workers[names[0]])
    flowing = asyncio.create_task(load.flow(rate))
    try:
        yield load
    finally:
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
    await drained(direct, workers.workers[names[0]], 90)
    for name in workers.workers:
        await workers.listens(name)  # one that was just started does not know signals yet
    stopped = workers.stop()
    assert set(stopped.values()) == {0}, stopped


__all__ = [
    "NEAR_THRESHOLD",
    "OUTPUT_CLOSE",
    "STATE_CLOSE",
    "Checked",
    "Crew",
    "Deviations",
    "Load",
    "check",
    "crew",
    "drained",
    "end_offsets",
    "loaded",
    "progress",
    "read",
    "scores",
    "stalls",
    "states",
    "stored_offsets",
    "wait_until",
]
