"""Servers that one test owns: killed, frozen, cut off and taken back in time at will."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import redis

from stream_gru.errors import StreamGruError
from stream_gru.settings import Kafka, MetricsSettings, Settings, State, Topics
from stream_gru.tools import topics
from stream_gru.tools.embedded import HOST, ApacheKafka, RedisServer, Server, free_port
from tests.chaos.proxy import Proxy
from tests.support.freezing import freeze

NEEDS_KAFKA_HOME = "needs Apache Kafka: set KAFKA_HOME. The embedded broker can't be put behind a proxy or killed"


class Faulty:
    """A server and what may happen to it."""

    server: Server

    def kill(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def stop(self) -> None:
        """SIGTERM."""
        self.server.stop()

    def freeze(self) -> None:
        """SIGSTOP."""
        freeze(self.server)

    def thaw(self) -> None:
        """SIGCONT."""
        self.server.send_signal(signal.SIGCONT)


class Broker(Faulty):
    """Apache Kafka with two doors: `direct`, for those who watch, and one behind a proxy, for the workers."""

    def __init__(self, folder: Path) -> None:
        home = os.environ.get("KAFKA_HOME")
        if not home:
            raise StreamGruError(NEEDS_KAFKA_HOME)
        self.server: ApacheKafka = ApacheKafka(folder, Path(home))
        behind = free_port()
        self.proxy = Proxy(behind)
        self._behind = behind

    @property
    def direct(self) -> str:
        """host:port past the proxy."""
        return self.server.bootstrap_servers

    @property
    def through_proxy(self) -> str:
        """host:port of the proxy."""
        return f"{HOST}:{self.proxy.port}"

    def start(self) -> None:
        """Start, or start again: the same ports, the same data."""
        server = self.server
        server.properties |= {
            "listeners": f"PLAINTEXT://{HOST}:{server.port},PROXIED://{HOST}:{self._behind},"
            f"CONTROLLER://{HOST}:{server.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.direct},PROXIED://{self.through_proxy}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        }
        server.start()


class _Redis(RedisServer):
    """One that meets a limit on the size of its files as an error, not as a signal."""

    def _command(self) -> list[str]:
        return ["/bin/sh", "-c", 'trap "" XFSZ; exec "$@"', "sh", *super()._command()]


class Store(Faulty):
    """Redis behind a proxy, with an append-only file that can be put back to what it was."""

    def __init__(self, folder: Path) -> None:
        self.server: _Redis = _Redis(folder / "redis")
        self.proxy = Proxy(self.server.port)
        self._copies = folder / "copies"
        self._copies.mkdir(parents=True)

    @property
    def url(self) -> str:
        """Through the proxy."""
        return f"redis://{HOST}:{self.proxy.port}/0"

    def start(self) -> None:
        """Start, or start again: the same port, the same data."""
        self.server.start()

    def configure(self, **values: str) -> None:
        """CONFIG SET, past the proxy."""
        with redis.Redis.from_url(self.server.url) as client:
            for name, value in values.items():
                client.config_set(name.replace("_", "-"), value)

    def remember(self) -> Path:
        """Its files as they are now, while it runs: the last write may be cut in the middle."""
        while True:
            copy, before = self._copies / uuid4().hex, self._manifest()
            with suppress(shutil.Error):  # a file that a rewrite of the whole has taken away meanwhile
                shutil.copytree(self.server.directory, copy, ignore=shutil.ignore_patterns("*.log"))
                if self._manifest() == before:
                    return copy
            shutil.rmtree(copy, ignore_errors=True)

    def _manifest(self) -> list[str]:
        """Which files the append-only file consists of, in the layout of Redis 7."""
        return [file.read_text("utf-8") for file in sorted(self.server.directory.rglob("*.manifest"))]

    def go_back(self, to: Path) -> None:
        """Crash, and come up again as it was; the copy is used up."""
        self.server.kill()
        for entry in self.server.directory.iterdir():
            if entry.suffix != ".log":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.copytree(to, self.server.directory, dirs_exist_ok=True)
        shutil.rmtree(to)
        self.server.start()


@dataclass(frozen=True)
class Site:
    """What a test of faults works with."""

    settings: Settings  # of the workers: both servers through their proxies
    direct: Settings  # of those who watch: the same, past the proxies
    broker: Broker
    store: Store
    folder: Path  # of the workers' logs


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A broker that is gone at the end, whatever state it was left in."""
    made = Broker(folder)
    with made.proxy:
        try:
            made.start()
            yield made
        finally:
            made.kill()


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    """A Redis that is gone at the end, whatever state it was left in."""
    made = Store(folder)
    with made.proxy:
        try:
            made.start()
            yield made
        finally:
            made.kill()


def settings_for(kafka: str, url: str, partitions: int, *, direct: str = "", linger_ms: float = 5.0) -> Settings:
    """Settings with a group and topics of their own, which are made, at `direct` where that is another address."""
    unique = uuid4().hex[:8]
    made = Settings(
        kafka=Kafka(bootstrap_servers=kafka, group_id=f"group-{unique}", session_timeout_s=6, rebalance_timeout_s=6),
        topics=Topics(
            readings=(f"readings-{unique}",),
            forecasts=f"forecasts-{unique}",
            anomalies=f"anomalies-{unique}",
            alerts=f"alerts-{unique}",
            dead_letters=f"dead-letters-{unique}",
            commands=f"commands-{unique}",
            command_replies=f"command-replies-{unique}",
        ),
        state=State(url=url),
        metrics=MetricsSettings(port=0),
    )
    made = made.model_copy(update={"worker": made.worker.model_copy(update={"linger_ms": linger_ms})})
    topics.create(at(made, direct or kafka), partitions)
    return made


def at(settings: Settings, kafka: str, url: str = "") -> Settings:
    """The same at other addresses: as those see it who don't go through a proxy."""
    updated = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"bootstrap_servers": kafka})})
    if not url:
        return updated
    return updated.model_copy(update={"state": updated.state.model_copy(update={"url": State(url=url).url})})
