"""Servers behind proxies. They are shared by all tests of a session, and whole again at the start of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import servers
from tests.chaos.servers import Broker, Site, Store

PARTITIONS = 6


@pytest.fixture(scope="session")
def _broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if not os.environ.get("KAFKA_HOME"):
        pytest.skip(servers.NEEDS_KAFKA_HOME)
    with servers.broker(tmp_path_factory.mktemp("broker")) as made:
        yield made


@pytest.fixture(scope="session")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with servers.store(tmp_path_factory.mktemp("store")) as made:
        if not made.server.binary:
            pytest.skip("needs a redis-server with an append-only file")
        yield made


@pytest.fixture
def broker(_broker: Broker) -> Iterator[Broker]:
    """Apache Kafka behind a proxy."""
    yield _broker
    _broker.proxy.heal()
    _broker.thaw()
    _broker.start()


@pytest.fixture
def store(_store: Store) -> Iterator[Store]:
    """Redis behind a proxy."""
    yield _store
    _store.proxy.heal()
    _store.proxy.upstream = _store.server.port
    _store.thaw()
    _store.start()
    _store.configure(maxmemory="0")


@pytest.fixture
def site(broker: Broker, store: Store, tmp_path: Path) -> Site:
    """Both, and topics of one's own."""
    settings = servers.settings_for(broker.through_proxy, store.url, PARTITIONS, direct=broker.direct)
    return Site(settings, servers.at(settings, broker.direct, store.server.url), broker, store, tmp_path)
