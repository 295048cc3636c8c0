"""Whether Kafka answers: what clients asked and got no answer to, and what is done about it.

Clients wait for a broker that is away, frozen or behind a black hole without a word. `Pulse` notes when each kind of
request was last left waiting; `KafkaWatch` makes readiness of it, finds the cause, and cuts connections that lead
nowhere.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from stream_gru.errors import BrokerError
from stream_gru.kafka import aiokafka_options, diagnose
from stream_gru.kafka.polite import client_of, polite
from stream_gru.metrics import Health
from stream_gru.settings import Kafka

log = logging.getLogger(__name__)

T = TypeVar("T")

SILENT_S = 8.0  # without an answer, and it counts as away; with the second of a turn, well under 15 s to a 503
_AGE = re.compile(r" for \d+ s\b")
_TURN_S = 1.0  # between two looks
_ASK_AGAIN_S = 3.0  # between two questions after the cause, each of which connects anew
_CUT_AGAIN_S = 10.0  # between two cuts: a new connection has SILENT_S to be of more use
_KINDS = {
    FetchRequest: "fetch",
    HeartbeatRequest: "group",
    FindCoordinatorRequest: "group",
    JoinGroupRequest: "join",
    SyncGroupRequest: "join",
}
_WORDS = {
    "fetch": "Kafka does not answer fetches",
    "group": "the coordinator of the group does not answer",
    "join": "joining the group is not answered",
}
_NOT_THERE = {14, 15, 16}  # loading, not available, not coordinator: answers of a broker that can't do it yet
_NOT_KNOWN, _FENCED = 25, 82  # UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID


class Pulse:
    """The clients of one plane, and since when each kind of request waits for an answer."""

    def __init__(self, kafka: Kafka, clock: Callable[[], float] = time.monotonic) -> None:
        self._kafka = kafka
        self._clock = clock
        self._waiting: dict[str, float] = {}
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()
        self._known_at: float | None = None  # the group's last word that it knows us
        self.replaced = asyncio.Event()  # another process joined under our group_instance_id

    def attach(self, owner: T) -> T:
        """Give the client inside `owner` manners and listen to it; returns `owner`."""
        client = client_of(polite(owner, lambda: aiokafka_options(self._kafka)))
        ask = client.send

        async def send(node: Any, request: Any, **options: Any) -> Any:
            kind = _KINDS.get(type(request))
            if kind == "join" and self.replaced.is_set():  # it would throw the other out, and so on
                raise KafkaError("another process has this member's place in the group")
            if kind:
                self.asked(kind)
            answer = await ask(node, request, **options)
            if kind:
                self.answered(kind, getattr(answer, "error_code", 0))
            return answer

        client.send = send
        self._clients.add(client)
        return owner

    def asked(self, kind: str) -> None:
        """A request goes out, or would if there were a connection."""
        if kind == "join":
            self._waiting.pop("group", None)  # no heartbeats while it joins, which may take as long as a rebalance
        self._waiting.setdefault(kind, self._clock())

    def answered(self, kind: str, code: int = 0) -> None:
        """An answer with Kafka's error code came."""
        if code in _NOT_THERE:
            return
        self._waiting.pop(kind, None)
        if kind != "fetch":
            self._waiting.pop("group", None)
            self._known(code)

    def problem(self) -> str | None:
        """What has waited for too long, in words."""
        now = self._clock()
        for kind, since in list(self._waiting.items()):  # clients on threads of their own change it
            may_take = self._kafka.rebalance_timeout_s if kind == "join" else 0.0
            if now - since > SILENT_S + may_take:
                return f"{_WORDS[kind]} ({self._kafka.bootstrap_servers})"
        return None

    def cut(self) -> None:
        """Close every connection: what waits on one fails now, and is asked again on a new one."""
        for client in list(self._clients):
            for connection in list(client._conns.values()):
                # A client may live on a thread of its own, as that of a Faust consumer does.
                client._loop.call_soon_threadsafe(partial(connection.close, reason=CloseReason.CONNECTION_BROKEN))

    def _known(self, code: int) -> None:
        """Tells a member that was replaced from one whose session ran out: the group knew it just now."""
        now = self._clock()
        fresh = self._known_at is not None and now - self._known_at < self._kafka.session_timeout_s / 2
        if code == 0:
            self._known_at = now
        elif self._kafka.group_instance_id and (code == _FENCED or (code == _NOT_KNOWN and fresh)):
            self.replaced.set()


class KafkaWatch:
    """Keeps one part of the health by what a plane's clients hear from Kafka."""

    def __init__(
        self,
        kafka: Kafka,
        pulse: Pulse,
        health: Health,
        *,
        part: str = "kafka",
        more: Callable[[], str | None] = str,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`more` names a problem that the pulse can't feel, if there is one; `check` raises a `BrokerError` for what is
        wrong with the topics and rights, and is called when there is a problem with a Kafka that answers.
        """
        self._kafka = kafka
        self._pulse = pulse
        self._health = health
        self._part = part
        self._more = more
        self._check = check
        self._since: float | None = None  # of the present problem
        self._told = ""
        self.away = False  # a fresh connection did not work either
        self._cut_at = float("-inf")

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(_ASK_AGAIN_S if self.away else _TURN_S)
            await self.turn()

    async def turn(self) -> None:
        """Look once."""
        problem = self._pulse.problem() or self._more() or None
        if problem is None and not self.away:
            self._well()
            return
        if not self.away:
            self._health.report(self._part, problem)  # now; finding the cause takes a while
        cause = await diagnose(self._kafka)
        if cause is not None:
            self._unwell(cause)
            self.away = True
            return
        # It answers others. What still waits here does so on a connection that leads nowhere.
        if self.away or (problem and time.monotonic() - self._cut_at > _CUT_AGAIN_S):
            self._pulse.cut()
            self._cut_at = time.monotonic()
        self.away = False
        problem = self._more() or self._pulse.problem() or None
        if problem is None:
            self._well()
            return
        try:
            if self._check is not None:
                await self._check()
            self._unwell(BrokerError(problem))
        except BrokerError as error:
            self._unwell(error)

    def _well(self) -> None:
        if self._since is not None:
            log.warning("Kafka answers again, after %.0f s", time.monotonic() - self._since)
        self._since, self._told = None, ""
        self._health.report(self._part)

    def _unwell(self, cause: BrokerError) -> None:
        if self._since is None:
            self._since = time.monotonic()
        told = _AGE.sub("", str(cause))  # what grows older is no news
        if told != self._told:
            self._told = told
            log.error("waiting for Kafka: %s", cause)
        self._health.report(self._part, str(cause))
