"""Clients do not hammer a broker that has nothing to say, or is away."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from stream_gru.errors import SettingsError
from stream_gru.kafka import polite as module
from stream_gru.kafka.polite import polite

FETCH = FetchRequest.__new__(FetchRequest)
OTHER = MetadataRequest.__new__(MetadataRequest)
EMPTY = SimpleNamespace(topics=[("readings", [(0, 0, 7, b""), (1, 0, 9, b"")])])
FULL = SimpleNamespace(topics=[("readings", [(0, 0, 7, b""), (1, 0, 9, b"records")])])
ERROR = SimpleNamespace(topics=[("readings", [(0, 1, -1, b"")])])


@pytest.mark.parametrize(
    ("request_", "answer", "takes_s", "pauses"),
    [
        (FETCH, EMPTY, 0.0, True),
        (FETCH, EMPTY, 0.05, False),
        (FETCH, FULL, 0.0, False),
        (FETCH, ERROR, 0.0, False),
        (OTHER, EMPTY, 0.0, False),
    ],
)
async def test_when_it_pauses(
    request_: Any, answer: Any, takes_s: float, pauses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.2)

    async def send(node: int, request: Any, group: str | None = None) -> Any:
        assert (node, request, group) == (1, request_, "fetch")
        await asyncio.sleep(takes_s)
        return answer

    consumer = SimpleNamespace(_client=SimpleNamespace(send=send))
    assert polite(consumer) is consumer
    asked = time.monotonic()
    assert await consumer._client.send(1, request_, group="fetch") is answer
    assert (time.monotonic() - asked - takes_s > 0.15) == pauses


class Client:
    """As much of aiokafka's client as manners touch: a node that can't be reached, until it can."""

    def __init__(self) -> None:
        self.attempts: list[float] = []
        self.updates: list[float] = []
        self.tried_often = asyncio.Event()
        self.there = False
        self.answers = True
        self.bootstraps = 0
        self.asked_again = asyncio.Event()
        self.topics: set[str] = set()  # that there are
        self.cluster = SimpleNamespace(brokers=lambda: {1}, partitions_for_topic=lambda topic: {topic} & self.topics)
        self._topics: set[str] = set()  # that it wants
        self._sync_task: object | None = object()
        self._conns: dict[Any, Any] = {}
        self._sasl_plain_username = "old"

    async def send(self, node: int, request: Any) -> Any:
        raise AssertionError("not asked for")

    async def _get_conn(self, node: int, *, group: Any, no_hint: bool = False) -> Any:
        self.attempts.append(time.monotonic())
        if len(self.attempts) == 5:
            self.tried_often.set()
        if self.there:
            self._conns[node, group] = SimpleNamespace(connected=lambda: True)
        return self._conns.get((node, group))

    async def _metadata_update(self, cluster: Any, topics: Any) -> bool:
        self.updates.append(time.monotonic())
        return self.answers

    def force_metadata_update(self) -> None:
        self.asked_again.set()

    async def bootstrap(self) -> None:
        self.bootstraps += 1
        raise KafkaConnectionError


async def test_many_that_want_a_node_which_is_away_try_it_seldom() -> None:
    client = polite(Client())

    async def insist() -> None:
        while await client._get_conn(7, group="default") is None:
            pass  # as aiokafka does

    insisting = [asyncio.create_task(insist()) for _ in range(20)]
    async with asyncio.timeout(20):
        await client.tried_often.wait()
        assert client.attempts[4] - client.attempts[0] > 1.0, "0.1, 0.2, 0.4, 0.8 s and jitter"
        client.there = True
        await asyncio.gather(*insisting)
    tried = len(client.attempts)
    assert tried <= 7
    assert await client._get_conn(7, group="default") is not None
    assert len(client.attempts) == tried, "a connection that is there is used"
    client._conns[7, "default"] = SimpleNamespace(connected=lambda: False)
    assert (await client._get_conn(7, group="default")).connected()
    assert len(client.attempts) == tried + 1, "one that was lost is not"


async def test_of_many_that_wait_for_a_turn_one_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client, tried, fail = Client(), asyncio.Event(), asyncio.Event()
    fail.set()

    async def attempt(node: int, *, group: Any) -> Any:
        client.attempts.append(time.monotonic())
        tried.set()
        await fail.wait()

    monkeypatch.setattr(client, "_get_conn", attempt)
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 0.01)
    assert await polite(client)._get_conn(7, group="default") is None
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 60.0)
    tried.clear()
    fail.clear()
    waiting = [asyncio.create_task(client._get_conn(7, group="default")) for _ in range(20)]
    async with asyncio.timeout(5):
        await tried.wait()
    await asyncio.sleep(0.05)  # that the other 19 would have needed to try as well
    assert len(client.attempts) == 2
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def test_turns_come_later_and_later_and_at_once_after_a_success() -> None:
    now = [0.0]
    turns = module.Turns(lambda: now[0])
    assert turns.wait_s("n") == 0
    waits = []
    for _ in range(12):
        turns.begin("n")
        turns.end("n", False)
        waits.append(turns.wait_s("n"))
        now[0] += waits[-1]
    assert waits[0] < 0.13
    assert all(1.5 <= wait <= 2.5 for wait in waits[6:])
    assert turns.wait_s("another") == 0
    turns.end("n", False)
    turns.end("n", True)  # of an attempt that had begun before
    assert turns.wait_s("n") == 0
    turns.end("n", False)
    assert turns.wait_s("n") < 0.13, "the first failure since it worked"


async def test_a_connection_that_is_never_made_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 0.05)
    client = Client()

    async def hang(node: int, *, group: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(client, "_get_conn", hang)
    async with asyncio.timeout(5):
        assert await polite(client)._get_conn(7, group="default") is None


async def test_credentials_are_those_of_now() -> None:
    fresh = {"ssl_context": "c", "sasl_mechanism": "m", "sasl_plain_username": "new", "sasl_plain_password": "p"}
    client: Any = polite(Client(), lambda: {**fresh, "bootstrap_servers": "elsewhere:9092"})
    await client._get_conn(7, group="default")
    assert {name: getattr(client, f"_{name}") for name in fresh} == fresh
    assert not hasattr(client, "_bootstrap_servers")


async def test_a_credential_that_can_not_be_read_now_leaves_the_old_one(caplog: pytest.LogCaptureFixture) -> None:
    def gone() -> dict[str, Any]:
        raise SettingsError("kafka.sasl_password_file: there is no file secret")

    client = polite(Client(), gone)
    await client._get_conn(7, group="default")
    assert client._sasl_plain_username == "old"
    assert "no file secret" in caplog.text


async def test_metadata_is_asked_for_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "METADATA_S", 0.1)
    client = polite(Client())
    for _ in range(4):
        await client._metadata_update(None, None)
    assert client.updates[3] - client.updates[0] > 0.28


@pytest.mark.parametrize(
    ("topics", "own", "closed", "again"),
    [
        ({"there"}, True, False, False),
        ({"there", "away"}, True, False, True),
        ({"there", "away"}, True, True, False),
        ({"there", "away"}, False, False, False),  # what somebody else asks for is not the client's own picture
    ],
)
async def test_a_topic_that_an_answer_lacks_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, topics: set[str], own: bool, closed: bool, again: bool
) -> None:
    monkeypatch.setattr(module, "METADATA_S", 0.0)
    monkeypatch.setattr(module, "MISSING_S", 0.01)
    client = polite(Client())
    client.topics, client._topics = {"there"}, topics
    assert await client._metadata_update(client.cluster if own else None, topics)
    if closed:
        client._sync_task = None
    if again:
        async with asyncio.timeout(10):
            await client.asked_again.wait()
    else:
        await asyncio.sleep(0.05)  # several times as long as it would take
        assert not client.asked_again.is_set()


@pytest.mark.parametrize(
    ("brokers", "first", "for_long", "again"),
    [
        (True, None, False, False),
        (True, None, True, True),  # they may have moved
        (False, None, False, True),
        (False, "open", False, False),
        (False, "closed", False, True),
    ],
)
async def test_a_client_that_can_ask_no_broker_begins_anew(
    monkeypatch: pytest.MonkeyPatch, brokers: bool, first: str | None, for_long: bool, again: bool
) -> None:
    monkeypatch.setattr(module, "METADATA_S", 0.0)
    monkeypatch.setattr(module, "REDISCOVER_S", 0.0 if for_long else 3600.0)
    client = polite(Client())
    assert await client._metadata_update(None, None)
    assert client.bootstraps == 0
    client.answers, client.cluster = False, SimpleNamespace(brokers=lambda: {1} if brokers else set())
    if first:
        client._conns["bootstrap", ConnectionGroup.DEFAULT] = SimpleNamespace(connected=lambda: first == "open")
    assert not await client._metadata_update(None, None)
    assert client.bootstraps == again
