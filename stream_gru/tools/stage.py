"""A place to run a worker on: servers, topics of its own, and the worker itself, all gone again at the end."""

from __future__ import annotations

import asyncio
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from stream_gru import stores
from stream_gru.kafka import require_answer
from stream_gru.settings import Kafka, Settings, State, Topics, changed, environment
from stream_gru.stores import PartitionId
from stream_gru.tools import topics
from stream_gru.tools.embedded import HOST, RedisServer, free_port, kafka_server
from stream_gru.tools.processes import Child, wait_until

PARTITIONS = 4
RETENTION_HOURS = 0.03  # the embedded broker holds all of it in memory, and a little more before it cleans up
START_TIMEOUT_S = 120.0  # torch may have to be read from a cold disk

# Servers that are started here ask for nothing.
OPEN_KAFKA: dict[str, Any] = {
    "kafka.security_protocol": "PLAINTEXT",
    **{f"kafka.{name}": None for name in Kafka.model_fields if name.startswith(("sasl_", "ssl_"))},
}
OPEN_STORE = {f"state.{name}": None for name in State.model_fields if name.startswith(("user", "password", "ssl_"))}


@dataclass(frozen=True, slots=True)
class Stage:
    """Settings with topics and a group of their own, and a worker with them that is ready."""

    settings: Settings
    worker: Child
    servers: str  # in words


@contextmanager
def stage(
    settings: Settings, kafka: str | None, redis: str | None, say: Callable[[str], None] = lambda _: None
) -> Iterator[Stage]:
    """Start what is needed; `kafka` (host:port) and `redis` (a URL) take the place of servers started for this alone.

    On servers of one's own the topics, groups and rows are removed at the end. Raises `StreamGruError` when something
    can't be started.
    """
    started = kafka is None and redis is None  # then all of it goes away with the servers
    given = {"kafka.bootstrap_servers": kafka, "state.url": redis}
    settings = changed(settings, {name: where for name, where in given.items() if where is not None})
    if kafka is not None:
        require_answer(settings.kafka)
    if redis is not None:
        asyncio.run(_answers(settings.state))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="stream-gru-demo-", ignore_cleanup_errors=True)))
        if kafka is None:
            say("starting a Kafka broker")
            broker = stack.enter_context(kafka_server(folder / "kafka"))
            stack.callback(broker.kill)  # at the end: to shut down in order takes seconds, and nothing of it is kept
            settings = changed(settings, {"kafka.bootstrap_servers": broker.bootstrap_servers, **OPEN_KAFKA})
            named = f"{broker.name} Kafka at {broker.bootstrap_servers}"
        else:
            named = f"Kafka at {kafka}"
        if redis is None:
            say("starting a Redis")
            redis = stack.enter_context(RedisServer(folder / "redis")).url
            settings = changed(settings, {"state.url": redis, **OPEN_STORE})
        own = _own(settings)
        say("creating topics")
        if not started:
            stack.callback(_remove, own)
        topics.create(own, PARTITIONS, retention_hours=RETENTION_HOURS)
        say("starting a worker")
        worker = Child([sys.executable, "-m", "stream_gru", "worker"], folder / "worker.log", environment(own))
        stack.callback(worker.stop)
        address = f"http://{HOST}:{own.metrics.port}/ready"
        wait_until(lambda: _says_ok(address), "the worker becomes ready", START_TIMEOUT_S, worker)
        yield Stage(own, worker, f"{named}, Redis at {own.state.shown_url}")


async def _answers(state: State) -> None:
    """Raises `StoreError` where the store can't be used."""
    store = stores.from_settings(state)
    try:
        await store.open()
    finally:
        await store.close()


def _own(settings: Settings) -> Settings:
    """`settings` with names that nobody else has."""
    name = f"stream-gru-demo-{uuid4().hex[:8]}"
    changes: dict[str, Any] = {
        "role": "all",
        "kafka.group_id": name,
        "topics.readings": (f"{name}-readings",),
        **{f"topics.{topic}": f"{name}-{topic}" for topic in Topics.model_fields if topic != "readings"},
        "metrics.host": HOST,
        "metrics.port": free_port(),
    }
    return changed(settings, changes)


def _says_ok(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:  # noqa: S310 - http to the loopback interface
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _remove(settings: Settings) -> None:
    """Leave nothing behind on servers that go on."""
    from stream_gru.kafka.names import changelog_topic, group_id

    topics.delete(settings, [changelog_topic(settings)], [settings.kafka.group_id, group_id(settings)])
    asyncio.run(_forget(settings))


async def _forget(settings: Settings) -> None:
    store = stores.from_settings(settings.state)
    try:
        await store.open()
        for partition in range(PARTITIONS):
            await store.delete(PartitionId(settings.kafka.group_id, settings.topics.readings[0], partition))
    finally:
        await store.close()
