"""Clients of aiokafka with manners: they do not hammer a broker that has nothing to say, or is away.

Apache Kafka holds an empty fetch back for a while (`fetch_max_wait_ms`). The embedded broker does not, and an idle
consumer of aiokafka's then asks some 3,000 times a second and takes half a core for it. And while a broker is away,
frozen or without the topic, aiokafka connects and asks for metadata hundreds of times a second, without a pause.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest

from stream_gru.errors import SettingsError

log = logging.getLogger(__name__)

T = TypeVar("T")

_AT_ONCE_S = 0.005  # an empty answer that came within it was not held back by the broker
PAUSE_S = 0.02  # after such an answer: 50 a second instead of 3,000
METADATA_S = 0.25  # between two requests for metadata of one client
MISSING_S = 1.0  # after an answer that lacks a topic, until it is asked for again
REDISCOVER_S = 30.0  # without an answer from any known broker, and the bootstrap servers are asked for others
CONNECT_S = 8.0  # for TCP, TLS, versions and SASL together
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 2.0  # between attempts to connect, doubled each time


def client_of(owner: Any) -> Any:
    """The `AIOKafkaClient` inside a consumer, a producer or an admin client; a client itself."""
    return getattr(owner, "_client", None) or getattr(owner, "client", None) or owner


def polite(owner: T, options: Callable[[], Mapping[str, Any]] | None = None) -> T:
    """Teach the client inside `owner` manners; returns `owner`.

    It pauses after an empty answer that came at once, waits longer and longer between attempts to connect, and asks for
    metadata a few times a second at most. `options` (as `kafka.aiokafka_options` gives them) are asked before each
    attempt, so that a password or certificate that was rotated is used without a restart.
    """
    client = client_of(owner)
    _pause_when_empty(client)
    if hasattr(client, "_get_conn"):
        _back_off(client, options)
        _ask_seldom(client, options)
    return owner


def _pause_when_empty(client: Any) -> None:
    ask = client.send

    async def send(node: Any, request: Any, **options: Any) -> Any:
        asked = time.monotonic()
        answer = await ask(node, request, **options)
        if isinstance(request, FetchRequest) and time.monotonic() - asked < _AT_ONCE_S and _is_empty(answer):
            await asyncio.sleep(PAUSE_S)
        return answer

    client.send = send


class Turns:
    """When a node may be tried next: at once, and after failures later and later, with jitter."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[Any, int] = {}
        self._next: dict[Any, float] = {}

    def wait_s(self, node: Any) -> float:
        """How long to wait before an attempt; 0: now."""
        return max(0.0, self._next.get(node, 0.0) - self._clock())

    def begin(self, node: Any) -> None:
        """An attempt begins: the others that wait for this node have to wait for its outcome or for the next turn."""
        if failures := self._failures.get(node, 0):
            delay = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16))
            self._next[node] = self._clock() + delay * random.uniform(0.75, 1.25)

    def end(self, node: Any, connected: bool) -> None:
        """How it ended."""
        if connected:
            self._failures.pop(node, None)
            self._next.pop(node, None)
        else:
            self._failures[node] = self._failures.get(node, 0) + 1
            self.begin(node)


def _back_off(client: Any, options: Callable[[], Mapping[str, Any]] | None) -> None:
    get, turns = client._get_conn, Turns()

    async def connection(node: Any, *, group: Any = ConnectionGroup.DEFAULT, **more: Any) -> Any:
        while True:
            held = client._conns.get((node, group))
            if held is not None and held.connected():
                return held
            if not (wait := turns.wait_s(node)):
                break
            await asyncio.sleep(wait)
        turns.begin(node)
        if options is not None:
            _renew(client, options)
        made = None
        try:
            async with asyncio.timeout(CONNECT_S):
                made = await get(node, group=group, **more)
        except TimeoutError:
            log.debug("no connection to node %s within %g s", node, CONNECT_S)
        turns.end(node, made is not None)
        return made

    client._get_conn = connection


def _renew(client: Any, options: Callable[[], Mapping[str, Any]]) -> None:
    """Credentials as they are now."""
    try:
        now = options()
    except SettingsError as error:  # a file that is just being replaced; the old ones may still do
        log.warning("%s", error)
        return
    for name in ("ssl_context", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password"):
        if name in now:
            setattr(client, f"_{name}", now[name])


def _ask_seldom(client: Any, options: Callable[[], Mapping[str, Any]] | None) -> None:
    """And again where an answer was no use, which aiokafka does not do by itself.

    From the start when no broker that it knows can be asked: they may have moved, all of them; and a broker that is
    just starting names none, after which there is none to ask. And soon when the answer lacks a topic, as those of a
    broker that is just starting do: the leader of a group then gives nobody any partition, and aiokafka would look
    again after `metadata_max_age_ms`, five minutes.
    """
    update, asked, answered = client._metadata_update, float("-inf"), time.monotonic()

    async def metadata(cluster: Any, topics: Any) -> Any:
        nonlocal asked, answered
        await asyncio.sleep(max(0.0, asked + METADATA_S - time.monotonic()))
        asked = time.monotonic()
        if await update(cluster, topics):
            answered = time.monotonic()
            if cluster is client.cluster and any(not cluster.partitions_for_topic(topic) for topic in client._topics):
                asyncio.get_running_loop().call_later(MISSING_S, _look_again, client)
            return True
        first = client._conns.get(("bootstrap", ConnectionGroup.DEFAULT))  # kept while it names no brokers
        known = client.cluster.brokers() or (first is not None and first.connected())
        if known and time.monotonic() - answered < REDISCOVER_S:
            return False
        if options is not None:
            _renew(client, options)
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await client.bootstrap()
        return False

    client._metadata_update = metadata


def _look_again(client: Any) -> None:
    if client._sync_task is not None:  # else it was closed meanwhile
        client.force_metadata_update()


def _is_empty(answer: Any) -> bool:
    """No records and no errors in a fetch's answer: each partition is (number, error code, ..., records)."""
    return not any(part[1] or part[-1] for _topic, parts in answer.topics for part in parts)
