"""Servers that the tests share, and settings of one's own for each test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import redis

from stream_gru.kafka import diagnose
from stream_gru.settings import Kafka, MetricsSettings, Settings, State, Topics
from stream_gru.tools import topics
from stream_gru.tools.embedded import KafkaServer, RedisServer, kafka_server
from stream_gru.tools.processes import wait_until

if TYPE_CHECKING:
    from tests.support.secured import SecuredKafka, SecuredRedis

PARTITIONS = 4
INTEGRATION = Path(__file__).parent / "integration"
SERVERS = {"kafka", "redis_server", "_broker", "_store"}  # fixtures; the latter two are those of the fault tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if INTEGRATION in item.path.parents or SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("integration")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests must not reach them."""
    for name in os.environ:
        if name.upper().startswith("STREAM_GRU_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Apache Kafka from KAFKA_HOME when that is set, else the embedded broker."""
    with kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        yield server
        server.kill()  # nobody needs what it would write on its way down


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The shared Redis, emptied."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def make_settings(kafka: KafkaServer, redis_url: str) -> Callable[[int], Settings]:
    """Settings with a group and topics that no other test has; call it with the number of partitions."""

    def make(partitions: int) -> Settings:
        unique = uuid4().hex[:8]
        made = Settings(
            kafka=Kafka(
                bootstrap_servers=kafka.bootstrap_servers,
                group_id=f"group-{unique}",
                session_timeout_s=6,
                # The embedded broker waits so long for a member that died, and the sessions of those that wait with it
                # run on meanwhile; Apache Kafka gives up on the dead one when its session ends.
                rebalance_timeout_s=3,
            ),
            topics=Topics(
                readings=(f"readings-{unique}",),
                forecasts=f"forecasts-{unique}",
                anomalies=f"anomalies-{unique}",
                alerts=f"alerts-{unique}",
                dead_letters=f"dead-letters-{unique}",
                commands=f"commands-{unique}",
                command_replies=f"command-replies-{unique}",
            ),
            # Tests wait for what is stored; those that are about what isn't yet have an interval of their own.
            state=State.model_validate({"url": redis_url, "checkpoint_interval_s": 0.2}),
            metrics=MetricsSettings(port=0),
        )
        topics.create(made, partitions)
        return made

    return make


@pytest.fixture
def settings(make_settings: Callable[[int], Settings]) -> Settings:
    """`make_settings` with a few partitions."""
    return make_settings(PARTITIONS)


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """Apache Kafka with users, certificates and ACLs, and the topics of the default settings in it."""
    from tests.support.secured import secured_kafka

    with secured_kafka(tmp_path_factory.mktemp("secured-kafka")) as server:
        topics.create(Settings(kafka=server.kafka("PLAINTEXT")), PARTITIONS)
        # A JVM that has only just started takes long over the first passwords that it checks.
        wait_until(lambda: asyncio.run(diagnose(server.kafka())) is None, "the first user", server.start_timeout_s)
        yield server
        server.kill()


@pytest.fixture(scope="session")
def secured_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRedis]:
    """A Redis with users and TLS."""
    from tests.support.secured import secured_redis

    with secured_redis(tmp_path_factory.mktemp("secured-redis")) as server:
        yield server
