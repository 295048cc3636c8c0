"""What keeps one out of Kafka, each cause told apart: in the diagnosis and on the command line.

That ten seconds are enough is measured inside this process: on a busy machine Python alone may take as long to start.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stream_gru import cli
from stream_gru.errors import BrokerError, BrokerRefusedError
from stream_gru.kafka import diagnose, rights
from stream_gru.kafka.cluster import Cluster
from stream_gru.settings import Kafka, Settings, environment
from stream_gru.tools.embedded import HOST, free_port
from tests.support.certificates import Authority
from tests.support.freezing import freeze
from tests.support.secured import PASSWORD, SecuredKafka, each, page

WITHIN_S = 10.0


@dataclass(frozen=True)
class Mistake:
    """Something set wrong, and what must be said of it."""

    words: tuple[str, ...]  # what is wrong, where, and what to do
    set: Callable[[SecuredKafka, Path], Kafka]
    refused: bool = True  # nothing that waiting could mend


def _with(*, listener: str = "SASL", user: str = "reader", **other: object) -> Callable[[SecuredKafka, Path], Kafka]:
    return lambda server, _: server.kafka(listener, user, **other)


def _other_ca(server: SecuredKafka, folder: Path) -> Kafka:
    return server.kafka(ssl_cafile=Authority(folder, "another CA").file)


def _same_name(server: SecuredKafka, folder: Path) -> Kafka:
    return server.kafka(ssl_cafile=Authority(folder).file)


def _foreign(server: SecuredKafka, folder: Path) -> Kafka:
    return server.kafka("MTLS", ssl_certfile=Authority(folder).issue("scorer"))


def _outdated(server: SecuredKafka, _: Path) -> Kafka:
    return server.kafka("MTLS", ssl_certfile=server.authority.issue("late", left=datetime.timedelta(hours=-1)))


def _tls_to_plain(server: SecuredKafka, _: Path) -> Kafka:
    return server.kafka(bootstrap_servers=server.bootstrap_servers)


def _empty_file(server: SecuredKafka, folder: Path) -> Kafka:
    file = folder / "ca.pem"
    file.write_text("")
    return server.kafka(ssl_cafile=file)


MISTAKES = {
    "password": Mistake(("refuses the password of user 'reader'", "kafka.sasl_password"), _with(sasl_password="wrong")),
    "user": Mistake(("or knows no such user", "'nobody-here'", "kafka.sasl_username"), _with(user="nobody-here")),
    "mechanism": Mistake(("does not take kafka.sasl_mechanism PLAIN",), _with(sasl_mechanism="PLAIN")),
    "weaker mechanism": Mistake(("kafka.sasl_mechanism SCRAM-SHA-256",), _with(sasl_mechanism="SCRAM-SHA-256")),
    "unknown CA": Mistake(("a CA that is not in kafka.ssl_cafile", "set kafka.ssl_cafile"), _other_ca),
    "CA made anew": Mistake(("a CA that is not in kafka.ssl_cafile",), _same_name),
    "no CA": Mistake(("this machine's list of CAs", "set kafka.ssl_cafile"), _with(ssl_cafile=None)),
    "empty CA": Mistake(("kafka.ssl_cafile", "no PEM certificate"), _empty_file),
    "no such CA": Mistake(("kafka.ssl_cafile: there is no file /nowhere",), _with(ssl_cafile="/nowhere")),
    "expired": Mistake(("its certificate has expired", "needs a new one"), _with(listener="EXPIRED")),
    "wrong name": Mistake(("is for another name", "'127.0.0.1'", "connect by a name"), _with(listener="NAMED")),
    "no client certificate": Mistake(
        ("asks for a client certificate", "kafka.ssl_certfile"), _with(listener="MTLS", ssl_certfile=None)
    ),
    "foreign client certificate": Mistake(("refuses our certificate", "signed by a CA"), _foreign),
    "outdated client certificate": Mistake(("refuses our certificate", "valid today"), _outdated),
    "plain to TLS": Mistake(("asks for TLS", "SASL_SSL"), _with(security_protocol="PLAINTEXT")),
    "SASL in the clear": Mistake(("asks for TLS", "SASL_SSL"), _with(security_protocol="SASL_PLAINTEXT")),
    "TLS to plain": Mistake(("port take no TLS", "PLAINTEXT"), _tls_to_plain, refused=False),
    "no user": Mistake(
        ("ask for a user and a password", "set SASL_SSL"), _with(security_protocol="SSL"), refused=False
    ),
    "SASL where none is": Mistake(
        ("asks for no user and password", "set SSL"), _with(listener="MTLS", security_protocol="SASL_SSL")
    ),
    "no such host": Mistake(
        ("no Kafka at nowhere.invalid:9092", "no host of this name", "kafka.bootstrap_servers"),
        _with(bootstrap_servers="nowhere.invalid:9092"),
        refused=False,
    ),
    "nobody listens": Mistake(
        ("no Kafka at 127.0.0.1:1", "refused", "is it running"), _with(bootstrap_servers="127.0.0.1:1"), refused=False
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_command_line_says_what_is_wrong_where_and_what_to_do(
    name: str, secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mistake = MISTAKES[name]
    kafka = mistake.set(secured, tmp_path)
    found = asyncio.run(diagnose(kafka))
    assert isinstance(found, BrokerRefusedError) == mistake.refused, found
    for variable, value in environment(Settings(kafka=kafka)).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", ["stream-gru", "topics", "check"])
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert time.monotonic() - began < WITHIN_S
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), err.startswith("error: ")) == ("", 1, True), err
    for words in mistake.words:
        assert words in err
    assert PASSWORD not in err


COMMANDS = {
    "topics check": ("topics", "check"),
    "topics create": ("topics", "create"),
    "tail": ("tail", "forecasts"),
    "simulate": ("simulate", "--series", "3"),
    "command": ("command", "report"),
    "state": ("state", "reset", "--yes"),
    "replay": ("replay", "HISTORY", "--time", "time", "--value", "value"),
    "demo": ("demo", "--kafka", "SERVERS"),
    "train": ("train", "--topic", "--out", "OUT", "--steps", "1"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_fails_at_once_with_one_message(name: str, secured: SecuredKafka, tmp_path: Path) -> None:
    """In a process of its own: nothing of a library is printed before the message, and nothing after it."""
    kafka = secured.kafka(sasl_password="wrong")
    history = tmp_path / "history.csv"
    history.write_text("time,value\n1,1.0\n2,2.0\n")
    meant = {"HISTORY": str(history), "OUT": str(tmp_path / "out"), "SERVERS": kafka.bootstrap_servers}
    done = _run(tuple(meant.get(word, word) for word in COMMANDS[name]), kafka)
    assert done.returncode == 2, done.stderr
    assert "refuses the password of user 'scorer'" in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1), done.stderr


WITHOUT_RIGHTS = {
    "topics create": ("may not CREATE", "readings", "docs/security.md"),
    "tail": ("user 'nobody' may not READ topic forecasts", "docs/security.md"),
    "simulate": ("user 'nobody' may not WRITE topic readings", "docs/security.md"),
    "command": ("may not WRITE topic commands", "may not READ topic command-replies", "docs/security.md"),
}


@pytest.mark.parametrize("name", WITHOUT_RIGHTS)
def test_a_missing_right_is_not_called_a_missing_topic(name: str, secured: SecuredKafka) -> None:
    done = _run(COMMANDS[name], secured.kafka(user="nobody"))
    assert done.returncode == 2, done.stderr
    for words in WITHOUT_RIGHTS[name]:
        assert words in done.stderr
    assert "no such topic" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_check_of_topics_names_the_missing_right_of_each(secured: SecuredKafka) -> None:
    done = _run(COMMANDS["topics check"], secured.kafka(user="nobody"))
    assert done.returncode == 1
    assert "readings: user 'nobody' may not DESCRIBE topic readings" in done.stderr.splitlines()


async def test_credentials_that_fit_are_no_problem(secured: SecuredKafka) -> None:
    for kafka in (secured.kafka(), secured.kafka("MTLS"), secured.kafka("PLAINTEXT")):
        assert await diagnose(kafka) is None


async def test_one_server_that_answers_is_enough(secured: SecuredKafka) -> None:
    kafka = secured.kafka()
    servers = f"{HOST}:1,{kafka.bootstrap_servers}"
    assert await diagnose(secured.kafka(bootstrap_servers=servers)) is None
    problem = await diagnose(secured.kafka(bootstrap_servers=f"{HOST}:1,nowhere.invalid:9"))
    assert "127.0.0.1:1" in str(problem)
    assert "nowhere.invalid" in str(problem)


@pytest.mark.parametrize("role", ["scorer", "alerter"])
async def test_each_right_that_is_taken_away_is_named(role: str, secured: SecuredKafka) -> None:
    settings = Settings(kafka=secured.kafka(user=role))
    needs = {"scorer": rights.scorer(settings) + rights.listener(settings), "alerter": rights.alerter(settings)}[role]
    lines = [right for line in page("acl", role) for right in each(line) if "changelog" not in right]
    secured.allow(lines)
    async with await Cluster.connect(settings.kafka) as cluster:
        await _until(lambda: cluster.problems(needs), [])
        for line in lines:
            operation, resource, name = line.split()[3], line.split()[4].strip("-"), line.split()[5]
            secured.forbid([line])
            await _until(
                lambda: cluster.problems(needs), [f"user '{role}' may not {operation.upper()} {resource} {name}"]
            )
            secured.allow([line])
        await _until(lambda: cluster.problems(needs), [])
    secured.forbid()


@dataclass
class Dumb:
    """A port with nobody behind it who speaks Kafka."""

    port: int
    taken: list[socket.socket] = field(default_factory=list)


@contextmanager
def _dumb(says: bytes | None, context: ssl.SSLContext | None = None) -> Iterator[Dumb]:
    """Takes connections and says nothing, or one thing and goodbye."""
    listener = socket.create_server((HOST, 0))
    server = Dumb(listener.getsockname()[1])

    def serve() -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            server.taken.append(taken)
            if says is not None:
                taken.recv(100)
                taken.sendall(says)
                taken.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for taken in server.taken:
            taken.close()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (None, "no answer within 4 s though the port is open"),
        (b"", "is the Kafka behind it down or just starting, or does the port ask for TLS?"),
        (b"\x15\x03\x03\x00\x02\x02\x50", "asks for TLS, but kafka.security_protocol is PLAINTEXT"),
        (b"HTTP/1.1 400 Bad Request\r\n", "is not Kafka"),
    ],
)
async def test_what_is_not_kafka(says: bytes | None, words: str) -> None:
    with _dumb(says) as server:
        began = time.monotonic()
        problem = await diagnose(Kafka(bootstrap_servers=f"{HOST}:{server.port}"))
        assert words in str(problem)
        assert f"{HOST}:{server.port}" in str(problem)
        assert time.monotonic() - began < WITHIN_S


async def test_a_cluster_survives_an_outage_and_asks_within_ten_seconds(secured: SecuredKafka) -> None:
    async with await Cluster.connect(secured.kafka("PLAINTEXT")) as cluster:
        assert await cluster.topics(["readings", "no-such-topic"])
        freeze(secured)
        try:
            began = time.monotonic()
            with pytest.raises(BrokerError, match="no answer in time"):
                await cluster.topics(["readings"])
            assert time.monotonic() - began < WITHIN_S
        finally:
            secured.send_signal(signal.SIGCONT)
        assert list(await cluster.topics(["readings", "no-such-topic"])) == ["readings"]


async def test_a_broker_that_is_away_is_found_again(secured: SecuredKafka) -> None:
    async with await Cluster.connect(secured.kafka("PLAINTEXT")) as cluster:
        for connection in cluster._link._open.values():
            connection.close()
        assert await cluster.topics(["readings"])


def test_nobody_waits_for_a_port_that_nobody_has() -> None:
    done = _run(COMMANDS["tail"], Kafka(bootstrap_servers=f"{HOST}:{free_port()}"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


async def _until(ask: Callable[[], Any], wanted: object) -> None:
    """ACLs reach the broker's cache a moment after the call."""
    deadline = time.monotonic() + 20
    while (found := await ask()) != wanted:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


def _run(command: tuple[str, ...], kafka: Kafka) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "stream_gru", *command],
        env={**os.environ, **environment(Settings(kafka=kafka))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert PASSWORD not in done.stdout + done.stderr
    return done
