"""How far a group has come, asked of Kafka, and waiting until it is far enough."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_gru.kafka import aiokafka_options
from stream_gru.kafka.cluster import Cluster
from stream_gru.settings import Settings
from stream_gru.tools.processes import Child
from tests.support.reading import partitions


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


async def stored_offsets(settings: Settings) -> dict[TopicPartition, int]:
    """The group's commits, which follow the stored offsets."""
    async with progress(settings) as asked:
        commits: dict[TopicPartition, int] = await asked.commits()
        return commits


async def begun(settings: Settings, worker: Child, timeout_s: float = 60) -> None:
    """Wait for the first outputs: the worker is in the middle of what there is to read."""
    deadline = time.monotonic() + timeout_s
    parts = await partitions(settings, [settings.topics.forecasts])
    async with AIOKafkaConsumer(**aiokafka_options(settings.kafka)) as consumer:
        while not any((await consumer.end_offsets(parts)).values()):
            if worker.returncode is not None or time.monotonic() > deadline:
                pytest.fail(f"no outputs\n{worker.tail(40)}")
            await asyncio.sleep(0.02)


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
