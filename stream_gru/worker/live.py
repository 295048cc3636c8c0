"""What a running worker holds: the parts it is made of, and each partition it owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_gru.codecs import Codec
from stream_gru.engine.stepper import Stepper
from stream_gru.kafka.cluster import Cluster
from stream_gru.kafka.commits import Commits
from stream_gru.metrics import Health, Metrics
from stream_gru.models.bundle import Bundle
from stream_gru.protocol.guard import ReadingGuard
from stream_gru.protocol.partition import Partition
from stream_gru.settings import Settings
from stream_gru.stores import Identity, PartitionId, Store

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(eq=False, slots=True)
class Live:
    """A partition that is restored and being read. Dropped as a whole when it is revoked or fenced."""

    tp: TopicPartition
    id: PartitionId
    state: Partition
    owner: str  # of this assignment
    handle: int  # of its rows in the arena
    series: int  # how many the partition has, resident or not
    complete: bool  # every row that the store has is resident: a series that is not is new
    checkpointed: float = 0.0  # monotonic time of the last confirmed checkpoint or probe
    acks: set[asyncio.Future[None]] = field(default_factory=set)  # publications not yet acknowledged
    guard: ReadingGuard = field(default_factory=ReadingGuard)  # what must be read with care (rule R21)
    calm: int = 0  # below it batches are small: an owner before this one ended, and may do so again

    @property
    def held(self) -> bool:
        """Whether it is still this assignment's: not revoked, fenced or claimed anew."""
        return self.state.owner == self.owner


@dataclass(slots=True)
class Parts:
    """What the worker's files share."""

    settings: Settings
    metrics: Metrics
    health: Health
    engine: Stepper
    codec: Codec
    store: Store
    cluster: Cluster
    commits: Commits
    consumer: AIOKafkaConsumer
    live: dict[TopicPartition, Live] = field(default_factory=dict)

    def release(self, live: Live) -> None:
        """Drop a partition with its rows (rule R11); what still comes in for it is ignored."""
        if self.live.get(live.tp) is live:
            del self.live[live.tp]
        if live.state.owner is not None:
            live.state.drop()
            self.engine.arena.close(live.handle)

    def require(self, bundle: Bundle) -> None:
        """Raises `BundleError` or `SettingsError` where a model can't do what the settings ask for."""
        bundle.description.context.require(self.settings.input.covariates)
        self.engine.require(bundle)

    def identity(self, topic: Identity) -> Identity:
        """What rows of the topic of that identity belong to with the model that is served now."""
        bundle = self.engine.bundle
        return replace(topic, model=bundle.digest, row=self.engine.layout.version, name=bundle.name)

    def free_handle(self) -> int:
        """The smallest number that no partition in the arena has."""
        taken = set(self.engine.arena.partitions)
        return next(n for n in range(len(taken) + 1) if n not in taken)
