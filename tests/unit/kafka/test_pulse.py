"""What counts as Kafka not answering, what readiness says of it, and what is done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest

from stream_gru.errors import BrokerError
from stream_gru.kafka import pulse as module
from stream_gru.kafka.pulse import SILENT_S, KafkaWatch, Pulse
from stream_gru.metrics import Health
from stream_gru.settings import Kafka

KAFKA = Kafka(session_timeout_s=10, rebalance_timeout_s=20)


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def pulse(now: list[float]) -> Pulse:
    return Pulse(KAFKA, lambda: now[0])


def test_an_answer_in_time_is_no_problem(pulse: Pulse, now: list[float]) -> None:
    for _ in range(50):
        pulse.asked("fetch")
        now[0] += SILENT_S - 1
        assert pulse.problem() is None
        pulse.answered("fetch")


@pytest.mark.parametrize(("kind", "words"), [("fetch", "fetches"), ("group", "coordinator")])
def test_a_request_that_waits_is_one_however_often_it_is_asked(
    pulse: Pulse, now: list[float], kind: str, words: str
) -> None:
    for _ in range(9):
        pulse.asked(kind)
        now[0] += 1
    assert words in (pulse.problem() or "")
    assert KAFKA.bootstrap_servers in (pulse.problem() or "")
    pulse.answered(kind)
    assert pulse.problem() is None


def test_a_coordinator_that_is_not_there_is_no_answer(pulse: Pulse, now: list[float]) -> None:
    pulse.asked("group")
    now[0] += SILENT_S + 1
    for code in (14, 15, 16):
        pulse.answered("group", code)
        assert pulse.problem() is not None


def test_joining_may_take_as_long_as_a_rebalance(pulse: Pulse, now: list[float]) -> None:
    pulse.asked("group")
    now[0] += 1
    pulse.asked("join")
    now[0] += KAFKA.rebalance_timeout_s + SILENT_S - 1
    assert pulse.problem() is None
    now[0] += 2
    assert "joining" in (pulse.problem() or "")


@pytest.mark.parametrize(
    ("instance", "after_s", "code", "replaced"),
    [
        ("a", 2.0, 25, True),  # known just now, and no longer: another process has the name
        ("a", 2.0, 82, True),
        ("a", 9.0, 25, False),  # the session ran out
        ("a", 2.0, 27, False),  # a rebalance
        (None, 2.0, 25, False),
    ],
)
def test_a_member_that_was_replaced_is_told_from_one_that_slept(
    now: list[float], instance: str | None, after_s: float, code: int, replaced: bool
) -> None:
    pulse = Pulse(KAFKA.model_copy(update={"group_instance_id": instance}), lambda: now[0])
    pulse.answered("group", 0)
    now[0] += after_s
    pulse.answered("group", code)
    assert pulse.replaced.is_set() is replaced


class Connection:
    def __init__(self) -> None:
        self.closed = False

    def close(self, reason: Any) -> None:
        self.closed = True


class Client:
    """As much of aiokafka's client as a pulse touches."""

    def __init__(self) -> None:
        self._conns = {0: Connection()}
        self.turns: list[Callable[[], None]] = []  # what its own event loop, on another thread perhaps, is to do
        self._loop = SimpleNamespace(call_soon_threadsafe=self.turns.append)
        self.error: Exception | None = None

    async def send(self, node: int, request: Any, **_: Any) -> Any:
        if self.error:
            raise self.error
        return SimpleNamespace(error_code=0, topics=[("readings", [(0, 0, 7, b"records")])])


async def test_it_listens_to_a_client(pulse: Pulse, now: list[float]) -> None:
    client = Client()
    assert pulse.attach(client) is client
    client.error = OSError("gone")
    for request in (FetchRequest.__new__(FetchRequest), HeartbeatRequest.__new__(HeartbeatRequest)):
        with pytest.raises(OSError, match="gone"):
            await client.send(0, request)
        now[0] += SILENT_S + 1
        assert pulse.problem() is not None
        client.error = None
        await client.send(0, request)
        assert pulse.problem() is None
        client.error = OSError("gone")


async def test_a_member_that_was_replaced_does_not_join_again(now: list[float]) -> None:
    pulse = Pulse(KAFKA.model_copy(update={"group_instance_id": "a"}), lambda: now[0])
    client = pulse.attach(Client())
    join = JoinGroupRequest.__new__(JoinGroupRequest)
    await client.send(0, join)
    pulse.answered("group", 25)
    with pytest.raises(KafkaError, match="another process"):
        await client.send(0, join)


class Scene:
    """A watch over a pulse and a Kafka that says what `cause` is."""

    def __init__(self, pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cause: BrokerError | None = None
        self.more: str | None = None
        self.wrong: BrokerError | None = None
        self.health = Health()
        self.client = Client()
        self.pulse = pulse
        pulse.attach(self.client)
        monkeypatch.setattr(module, "diagnose", self._diagnose)
        self.watch = KafkaWatch(KAFKA, pulse, self.health, more=lambda: self.more, check=self._check)

    async def _diagnose(self, _: Kafka) -> BrokerError | None:
        return self.cause

    async def _check(self) -> None:
        if self.wrong:
            raise self.wrong

    async def turn(self) -> str | None:
        await self.watch.turn()
        return self.health.parts["kafka"]

    @property
    def cut(self) -> bool:
        assert not self.client._conns[0].closed, "only the loop of the client may touch its connections"
        for turn in self.client.turns:
            turn()
        return self.client._conns[0].closed


@pytest.fixture
def scene(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(pulse, monkeypatch)


async def test_an_outage_from_its_first_sign_to_its_end(
    scene: Scene, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    assert await scene.turn() is None
    scene.pulse.asked("fetch")
    now[0] += SILENT_S + 1
    scene.cause = BrokerError("127.0.0.1:9092 refuses connections")
    for _ in range(5):
        assert await scene.turn() == "127.0.0.1:9092 refuses connections"
    assert not scene.cut
    scene.cause = None
    assert "fetches" in (await scene.turn() or ""), "ready when it is answered, not when it might be"
    assert scene.cut, "what waits on a connection of before the outage would wait for its whole timeout"
    assert not scene.watch.away
    scene.pulse.answered("fetch")
    assert await scene.turn() is None
    assert caplog.text.count("waiting for Kafka: 127.0.0.1:9092 refuses") == 1
    assert "answers again" in caplog.text


async def test_a_join_that_an_outage_swallowed_is_cut(scene: Scene, now: list[float]) -> None:
    scene.pulse.asked("fetch")
    now[0] += SILENT_S + 1
    scene.cause = BrokerError("no answer")
    await scene.turn()
    scene.pulse.answered("fetch")
    scene.pulse.asked("join")
    assert scene.pulse.problem() is None
    assert await scene.turn() == "no answer", "still away"
    scene.cause = None
    assert await scene.turn() is None
    assert scene.cut


async def test_what_waits_though_kafka_answers_others_is_cut_now_and_then(
    scene: Scene, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.pulse.asked("fetch")
    now[0] += SILENT_S + 1
    assert "fetches" in (await scene.turn() or "")
    assert scene.cut
    scene.client._conns[0], scene.client.turns[:] = Connection(), []
    await scene.turn()
    assert not scene.cut, "a new connection has some time"
    monkeypatch.setattr(module, "_CUT_AGAIN_S", 0.0)
    await scene.turn()
    assert scene.cut


async def test_readiness_does_not_wait_for_the_cause(
    scene: Scene, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, found = asyncio.Event(), asyncio.Event()

    async def diagnose(_: Kafka) -> None:
        looking.set()
        await found.wait()

    monkeypatch.setattr(module, "diagnose", diagnose)
    scene.pulse.asked("fetch")
    now[0] += SILENT_S + 1
    turning = asyncio.create_task(scene.turn())
    async with asyncio.timeout(5):
        await looking.wait()
        assert "fetches" in (scene.health.parts["kafka"] or "")
        found.set()
        await turning


async def test_outputs_without_acknowledgement_have_their_cause_looked_for(scene: Scene) -> None:
    scene.more = "Kafka has not acknowledged outputs for 9 s"
    assert await scene.turn() == scene.more
    scene.wrong = BrokerError("there is no topic forecasts")
    assert await scene.turn() == "there is no topic forecasts"
    scene.more = scene.wrong = None
    assert await scene.turn() is None


async def test_what_only_grows_older_is_logged_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    for age in range(9, 14):
        scene.more = f"Kafka has not acknowledged outputs for {age} s"
        assert await scene.turn() == scene.more
    assert caplog.text.count("waiting for Kafka") == 1


async def test_it_runs_until_it_is_cancelled(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TURN_S", 0.0)
    turned = asyncio.Event()
    monkeypatch.setattr(scene.health, "report", lambda *_: turned.set())
    task = asyncio.create_task(scene.watch.run())
    async with asyncio.timeout(5):
        await turned.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
