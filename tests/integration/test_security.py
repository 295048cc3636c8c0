"""Each role works with exactly the rights that docs/security.md gives it, and names the one that is taken away."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from aiokafka import AIOKafkaProducer

from stream_gru.kafka import aiokafka_options, tail
from stream_gru.kafka.names import changelog_topic
from stream_gru.settings import Kafka, MetricsSettings, Settings, environment
from stream_gru.tools.embedded import HOST, free_port
from stream_gru.tools.processes import Child, wait_until
from stream_gru.worker import commands
from tests.support.alert_records import payload
from tests.support.forked import Worker
from tests.support.pages import ready
from tests.support.secured import PASSWORD, SecuredKafka, SecuredRedis, each, page

START_S = 90.0  # two cores that others use too
Start = Callable[..., Child]


@pytest.fixture
def start(secured: SecuredKafka, secured_store: SecuredRedis, tmp_path: Path) -> Iterator[Start]:
    """A worker on the secured servers; call it with the role, the user and the way in."""
    children: list[Child] = []
    secured_store.allow(*page("redis-acl", "scorer"))

    def starting(role: str, user: str, listener: str = "SASL") -> Child:
        settings = _settings(secured.kafka(listener, user), role)
        settings = settings.model_copy(update={"state": secured_store.state()})
        variables = environment(settings)
        child = Worker(tmp_path / f"{len(children)}.log", variables)
        child.port = settings.metrics.port  # type: ignore[attr-defined] # of /ready
        children.append(child)
        return child

    yield starting
    for child in children:
        child.kill()
        said = child.log.read_text()
        assert PASSWORD not in said
        assert "Traceback" not in said, said
    secured.forbid()


def _settings(kafka: Kafka, role: str = "all") -> Settings:
    return Settings.model_validate(
        {
            "kafka": kafka.model_copy(update={"session_timeout_s": 6.0}),
            "role": role,
            "metrics": MetricsSettings(port=free_port()),
        }
    )


def _says(child: Child, *words: str) -> Callable[[], bool]:
    return lambda: all(word in f"{ready(child.port)[1]}" for word in words)  # type: ignore[attr-defined] # see `starting`


def _is_ready(child: Child) -> Callable[[], bool]:
    return lambda: ready(child.port)[0]  # type: ignore[attr-defined] # see `starting`


async def _produce(kafka: Kafka, topic: str, value: bytes, series: str = "pump") -> None:
    async with AIOKafkaProducer(**aiokafka_options(kafka), enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, value, series.encode(), 0)


def _reading() -> bytes:
    return json.dumps({"timestamp": int(time.time() * 1000), "value": 1.0}).encode()


async def _one(settings: Settings, kind: tail.Kind, series: str = "pump") -> dict[str, object]:
    """The first record of `kind` about `series`, as a user who may read it."""
    reading = tail.read(settings, kind, series=series, from_beginning=True)
    try:
        async for payloads in reading:
            return payloads[0]
    finally:
        await reading.aclose()
    raise AssertionError("the topic ended")


async def test_a_scorer_a_producer_a_reader_and_an_operator(start: Start, secured: SecuredKafka) -> None:
    for user in ("scorer", "producer", "reader", "operator"):
        secured.allow(page("acl", user))
    child = start("scorer", "scorer")
    wait_until(_is_ready(child), "the scorer", START_S, child)
    await _produce(secured.kafka(user="producer"), "readings", _reading())
    reader = _settings(secured.kafka(user="reader"))
    forecast = await _one(reader, "forecasts")
    assert forecast["series"] == "pump"
    await _produce(secured.kafka(user="producer"), "readings", b"not a reading")
    assert (await _one(reader, "dead-letters"))["reason"]
    replies = await commands.send(_settings(secured.kafka(user="operator")), commands.Command(command="report"), 30.0)
    assert [reply.status for reply in replies] == ["ok"]
    said = child.log.read_text()
    assert "may not" not in said
    assert "NOPERM" not in said
    assert child.stop() == 0


async def test_an_alerter_with_a_client_certificate(start: Start, secured: SecuredKafka) -> None:
    secured.allow(page("acl", "alerter"))
    child = start("alerter", "alerter", "MTLS")
    wait_until(_is_ready(child), "the alerter", START_S, child)
    secured.allow(page("acl", "reader"))
    everything = secured.kafka("PLAINTEXT")
    await _produce(everything, "anomalies", payload(0, alert=True))
    assert (await _one(_settings(secured.kafka(user="reader")), "alerts"))["status"] == "firing"
    assert "may not" not in child.log.read_text()


def test_an_alerter_waits_for_the_right_that_it_lacks_and_names_it(start: Start, secured: SecuredKafka) -> None:
    child = start("alerter", "alerter")
    denied = "user 'alerter' may not READ topic anomalies; user 'alerter' may not WRITE topic alerts"
    wait_until(_says(child, denied, "docs/security.md"), "the reason", START_S, child)
    lines = page("acl", "alerter")
    secured.allow(line for line in lines if "changelog" not in line)
    wait_until(_says(child, "topic stream-gru-alerts-firing-changelog"), "the reason", START_S, child)
    secured.allow(lines)
    wait_until(_is_ready(child), "going on by itself", START_S, child)


async def test_both_in_one_process(start: Start, secured: SecuredKafka) -> None:
    secured.remove(changelog_topic(Settings()))  # so that it has to be created
    secured.allow(page("acl", "worker"))
    child = start("all", "worker")
    wait_until(_is_ready(child), "the worker", START_S, child)
    everything = secured.kafka("PLAINTEXT")
    await _produce(everything, "readings", _reading(), "both")
    assert (await _one(_settings(everything), "forecasts", "both"))["series"] == "both"
    assert "may not" not in child.log.read_text()


async def test_a_worker_waits_for_the_right_that_it_lacks_and_names_it(start: Start, secured: SecuredKafka) -> None:
    child = start("scorer", "scorer")
    denied = (
        "user 'scorer' may not READ topic readings",
        "may not WRITE topic forecasts",
        "may not READ group stream-gru",
    )
    wait_until(_says(child, *denied, "docs/security.md"), "the reason", START_S, child)
    secured.allow(page("acl", "scorer"))
    wait_until(_is_ready(child), "going on by itself", START_S, child)
    (right,) = [right for line in page("acl", "scorer") for right in each(line) if right.endswith("--topic forecasts")]
    secured.forbid([right])
    await _produce(secured.kafka("PLAINTEXT"), "readings", _reading(), "denied")
    wait_until(_says(child, "user 'scorer' may not WRITE topic forecasts"), "the reason", START_S, child)
    secured.allow([right])
    wait_until(_is_ready(child), "going on by itself", START_S, child)
    assert (await _one(_settings(secured.kafka("PLAINTEXT")), "forecasts", "denied"))["series"] == "denied"


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"sasl_password": "wrong"}, "refuses the password of user 'scorer'"),
        ({"ssl_cafile": None}, "a CA that is not in this machine's list of CAs"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "asks for TLS, but kafka.security_protocol is SASL_PLAINTEXT"),
    ],
)
def test_a_worker_that_is_refused_at_its_start_ends_with_the_cause(
    mistake: dict[str, Any], words: str, secured: SecuredKafka, secured_store: SecuredRedis, tmp_path: Path
) -> None:
    secured_store.allow(*page("redis-acl", "scorer"))
    settings = _settings(secured.kafka(**mistake), "scorer").model_copy(update={"state": secured_store.state()})
    child = Worker(tmp_path / "worker.log", environment(settings))
    try:
        assert child.wait(START_S) == 2
    finally:
        child.kill()
    said = child.log.read_text()
    assert words in said.splitlines()[-1]
    assert PASSWORD not in said
    assert "Traceback" not in said


def test_a_line_of_the_page_is_one_of_kafkas_own_tool(secured: SecuredKafka) -> None:
    (line,) = page("acl", "producer")
    tool = Path(os.environ["KAFKA_HOME"], "bin", "kafka-acls.sh")
    command = [str(tool), "--bootstrap-server", secured.bootstrap_servers, "--add", *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "principal=User:producer, host=*, operation=WRITE, permissionType=ALLOW" in done.stdout
    secured.forbid()


async def test_redis_names_each_command_that_its_user_may_not_run(secured_store: SecuredRedis) -> None:
    from stream_gru import stores
    from stream_gru.errors import StoreError
    from stream_gru.stores import Chosen, Identity, PartitionId

    (line,) = page("redis-acl", "scorer")
    needed = [word for word in line.split() if word.startswith("+") and word != "+info"]
    at, identity = PartitionId("g", "t", 0), Identity("", 1, secured_store.state().buckets, "", "")

    async def everything() -> None:
        store = stores.from_settings(secured_store.state())
        try:
            await store.open()
            await store.assign(at, "o" * 32, identity)
            await store.mark(at, "o" * 32, "where it reads")
            await store.write(at, [stores.Write("o" * 32, 1, [b"s"], [b"row"], 1, {})])
            await store.load(at, "o" * 32, 1, [b"s"])
            assert [row async for row in store.restore(at, "o" * 32, 1)]
            await store.choose("g", Chosen("digest", "name", {}), {})
            await store.chosen("g", files=True)
            await store.delete(at)
        finally:
            await store.close()

    secured_store.allow(line)
    await everything()
    with secured_store.admin() as admin:
        for right in needed:
            admin.flushall()
            secured_store.allow(line.replace(f" {right}", ""))
            with pytest.raises(StoreError, match=r"docs/security\.md") as told:
                await everything()
            assert right.strip("+") in str(told.value).lower(), told.value
            assert PASSWORD not in str(told.value)
        secured_store.allow(line.replace("~stream_gru:*", "~other:*"))
        with pytest.raises(StoreError, match=r"stream_gru:\{g:t-0\}|docs/security\.md"):
            await everything()
        secured_store.allow(line)
        with (
            pytest.raises(redis_client.exceptions.ResponseError, match="get"),
            redis_client.Redis(host=HOST, port=secured_store.port, username="scorer", password=PASSWORD) as nosy,
        ):
            nosy.get("stream_gru:x")
