"""A worker in this process over a Kafka that is played here: its own code from the session down to the clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError

from stream_gru import stores
from stream_gru.errors import BrokerError
from stream_gru.kafka.cluster import KafkaTopic
from stream_gru.models import bundle
from stream_gru.protocol.partition import Commit
from stream_gru.settings import Kafka, MetricsSettings, ModelSettings, Settings, State, WorkerSettings
from stream_gru.stores import PartitionId, Store
from stream_gru.worker import clients, control, taking, topic_watch, worker
from stream_gru.worker.worker import Worker

TOPIC = "readings"
FIRST, SECOND = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
CLIENTS = {"cluster", "publisher", "commits", "consumer"}  # what a session connects


@dataclass
class World:
    """What Kafka holds, what goes wrong with it next, and what was done with its clients."""

    partitions: int = 2
    topic_id: str = "T-1"
    there: bool = True  # the topic
    unset: set[TopicPartition] = field(default_factory=set)  # their positions, which aiokafka waits for
    asked: int = 0  # how often for one of those
    logs: dict[TopicPartition, list[ConsumerRecord]] = field(default_factory=dict)
    holes: dict[TopicPartition, int] = field(default_factory=dict)  # offsets without records at a log's end
    commits: dict[TopicPartition, Commit] = field(default_factory=dict)
    published: list[tuple[str, int, bytes]] = field(default_factory=list)
    polls: list[BaseException] = field(default_factory=list)  # what the next polls raise
    connects: list[BaseException] = field(default_factory=list)  # what the next sessions meet when they connect
    refused: list[BaseException] = field(default_factory=list)  # what the next commits meet
    lost: BaseException | None = None  # what becomes of all that is published
    acknowledges: bool = True
    cause: BrokerError | None = None  # what a fresh connection meets
    sessions: int = 0
    closed: list[str] = field(default_factory=list)
    consumer: Consumer | None = None
    publisher: Publisher | None = None

    def __post_init__(self) -> None:
        for partition in range(self.partitions):
            self.logs[TopicPartition(TOPIC, partition)] = []

    def add(self, records: int, partition: int = 0, value: bytes | None = None) -> None:
        """Readings of two series."""
        tp = TopicPartition(TOPIC, partition)
        now = int(time.time() * 1000)
        for _ in range(records):
            offset = len(self.logs[tp])
            payload = value or b'{"timestamp": %d, "value": %d}' % (now + offset, offset % 7)
            key = b"s%d" % (offset % 2)
            self.logs[tp].append(ConsumerRecord(TOPIC, partition, offset, now, 0, key, payload, None, 2, 1, ()))

    def end(self, tp: TopicPartition) -> int:
        return len(self.logs[tp]) + self.holes.get(tp, 0)

    @property
    def everything(self) -> dict[TopicPartition, int]:
        return {tp: self.end(tp) for tp in self.logs if self.end(tp)}

    @property
    def committed(self) -> dict[TopicPartition, int]:
        return {tp: commit.offset for tp, commit in self.commits.items() if commit.offset}

    def ids(self, topic: str) -> list[str]:
        """Of the records of a topic of outputs: which readings they answer."""
        return [json.loads(value)["id"] for name, _, value in self.published if name == topic]


class Client:
    """As much of aiokafka's client as manners and a pulse touch."""

    def __init__(self) -> None:
        self._conns: dict[Any, Any] = {}
        self._loop = asyncio.get_running_loop()

    async def send(self, node: int, request: Any, **_: Any) -> Any:
        raise AssertionError("nothing is asked")


class Consumer:
    """A member of the group that is given what `give` says."""

    def __init__(self, world: World, **options: Any) -> None:
        self._world = world
        self._client = Client()
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._assigned: set[TopicPartition] = set()
        self._listener: Any = None
        self._calls: set[asyncio.Task[None]] = set()
        self.sizes: list[int] = []
        self.options = options
        world.consumer = self

    async def start(self) -> None:
        if self._world.connects:
            raise self._world.connects.pop(0)
        self._world.sessions += 1

    async def stop(self) -> None:
        self._world.closed.append("consumer")

    def subscribe(self, topics: Sequence[str], listener: Any) -> None:
        assert topics == [TOPIC]
        self._listener = listener
        task = asyncio.create_task(self.give(self._world.logs))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def give(self, tps: Iterable[TopicPartition]) -> None:
        """The group gives partitions to this member."""
        fresh = set(tps)
        self._assigned |= fresh
        await self._listener.on_partitions_assigned(fresh)
        assert fresh <= self._paused, "they would be read from the group's commit, before the seek"

    async def take(self, *tps: TopicPartition) -> None:
        """The group takes partitions away."""
        await self._listener.on_partitions_revoked(set(tps))
        for tp in tps:
            self._assigned.discard(tp)
            self._positions.pop(tp, None)

    def assignment(self) -> set[TopicPartition]:
        return set(self._assigned)

    def pause(self, *tps: TopicPartition) -> None:
        self._paused |= set(tps)

    def resume(self, *tps: TopicPartition) -> None:
        self._paused -= set(tps)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        if tp not in self._assigned:
            raise IllegalStateError(f"{tp} is not assigned")
        self._positions[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        if tp not in self._positions:
            raise IllegalStateError(f"{tp} is not assigned")
        if tp in self._world.unset:
            self._world.asked += 1
            await asyncio.sleep(3600)
        at = self._positions[tp]
        return self._world.end(tp) if at == len(self._world.logs[tp]) else at

    def highwater(self, tp: TopicPartition) -> int:
        return self._world.end(tp)

    async def beginning_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    async def end_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self._world.end(tp) for tp in tps}

    async def getmany(self, *tps: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, Any]:
        found: dict[TopicPartition, Any] = {}
        for tp in tps or sorted(self._assigned - self._paused):
            if tp in self._paused or tp not in self._positions:
                continue
            if some := self._world.logs[tp][self._positions[tp] :][:max_records]:
                found[tp] = some
                self._positions[tp] = some[-1].offset + 1
                self.sizes.append(len(some))
                break
        if self._world.polls and (timeout_ms or found):
            raise self._world.polls.pop(0)
        await asyncio.sleep(0 if found else min(timeout_ms / 1000, 0.01))
        return found


class Publisher:
    """Acknowledges at once, unless the world says otherwise."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.on_stuck: Callable[[str | None], None] | None = None
        self.oldest_unacknowledged_s = 0.0
        world.publisher = self

    def send(self, topic: str, partition: int, keys: Any, values: Sequence[bytes], _: Any = None) -> Any:
        future = asyncio.get_running_loop().create_future()
        if self._world.lost is not None:
            future.set_exception(self._world.lost)
        elif self._world.acknowledges:
            self._world.published += [(topic, partition, value) for value in values]
            future.set_result(None)
        return future

    async def close(self) -> None:
        self._world.closed.append("publisher")


class Commits:
    def __init__(self, world: World) -> None:
        self._world = world

    async def commit(self, consumer: Consumer, commits: Mapping[TopicPartition, Commit]) -> None:
        if self._world.refused:
            raise self._world.refused.pop(0)
        self._world.commits |= commits

    async def close(self) -> None:
        self._world.closed.append("commits")


class Cluster:
    def __init__(self, world: World) -> None:
        self._world = world

    async def check(self, settings: Settings) -> None:
        pass

    async def topics(self, names: Iterable[str]) -> dict[str, KafkaTopic]:
        return {name: KafkaTopic(self._world.topic_id, self._world.partitions) for name in names if self._world.there}

    async def commits(self, group: str, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Commit]:
        return {tp: self._world.commits[tp] for tp in tps if tp in self._world.commits}

    async def record_crc(self, tp: TopicPartition, offset: int) -> int | None:
        raise AssertionError("this broker has topic ids")

    async def close(self) -> None:
        self._world.closed.append("cluster")


@dataclass
class Stage:
    """A worker that runs, and what surrounds it."""

    world: World
    settings: Settings
    worker: Worker
    store: Store  # the same rows as the worker's
    task: asyncio.Task[None]

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait for it; an error of the worker's comes out."""
        async with asyncio.timeout(20):
            while not happened():
                if self.task.done():
                    self.task.result()
                    pytest.fail("the worker ended")
                await asyncio.sleep(0.005)

    async def scored(self) -> None:
        """Wait until all is scored, stored and committed."""
        await self.until(lambda: self.world.committed == self.world.everything)

    async def ended(self) -> None:
        """Wait for its end; raises what ended it."""
        async with asyncio.timeout(20):
            await asyncio.wait([self.task])
        self.task.result()

    async def stop(self) -> None:
        await self.worker.stop()
        await self.ended()

    def at(self, partition: int) -> PartitionId:
        return PartitionId(self.settings.kafka.group_id, TOPIC, partition)

    async def left(self, partition: int = 0) -> Any:
        """What the store says of a partition to whoever takes it now."""
        lives = [live for live in self.lives if live.tp.partition == partition]
        identity = lives[0].state.identity if lives else stores.Identity(self.world.topic_id, 2, 16, "", "")
        return await self.store.assign(self.at(partition), uuid4().hex, identity)

    @property
    def lives(self) -> list[Any]:
        parts = self.worker._parts
        return list(parts.live.values()) if parts else []

    @property
    def parts(self) -> dict[str, str | None]:
        """Of the health."""
        return self.worker.health.parts


Play = Callable[..., contextlib.AbstractAsyncContextManager[Stage]]


def player(monkeypatch: pytest.MonkeyPatch) -> Play:
    """`play(world)` runs a worker over it until the end of the block; settings of sections are keywords."""

    def kind(world: World, made: Any) -> Any:
        async def connect(*_: Any) -> Any:
            return made(world)

        return SimpleNamespace(connect=connect)

    @contextlib.asynccontextmanager
    async def play(
        world: World, *, kafka: Any = None, state: Any = None, name: str | None = None
    ) -> AsyncIterator[Stage]:
        monkeypatch.setattr(clients, "AIOKafkaConsumer", lambda **options: Consumer(world, **options))
        for module, made in (("Cluster", Cluster), ("Publisher", Publisher), ("Commits", Commits)):
            monkeypatch.setattr(clients, module, kind(world, made))

        async def diagnose(_: Kafka) -> BrokerError | None:
            return world.cause

        monkeypatch.setattr(worker, "diagnose", diagnose)
        url = f"memory://{name or uuid4().hex}"
        settings = Settings(
            role="scorer",
            kafka=Kafka(**(kafka or {})),
            state=State.model_validate({"url": url, "checkpoint_interval_s": 0.02, "capacity": 4096, **(state or {})}),
            model=ModelSettings(bundle=bundle.SHIPPED["light"], device="cpu"),
            metrics=MetricsSettings(port=0),
            worker=WorkerSettings(max_batch=512),
        )
        runner = Worker(settings)
        stage = Stage(world, settings, runner, stores.from_settings(settings.state), asyncio.create_task(runner.run()))
        try:
            yield stage
        finally:
            if not stage.task.done():
                await runner.stop()
                await asyncio.wait([stage.task], timeout=20)
            if not stage.task.done():
                stage.task.cancel()
            await asyncio.gather(stage.task, return_exceptions=True)

    for module, name, value in (
        (worker, "RETRY_S", 0.01),
        (taking, "RETRY_S", 0.01),
        (topic_watch, "_LOOK_S", 0.02),
        (control, "_FOLLOW_S", 0.05),
    ):
        monkeypatch.setattr(module, name, value)
    return play
