"""The control plane is made anew after a crash, and can always be left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from stream_gru.alerts import agent, life
from stream_gru.errors import BrokerError, BrokerRefusedError, CredentialsError, SettingsError, StreamGruError
from stream_gru.kafka import pulse
from stream_gru.kafka.pulse import Pulse
from stream_gru.metrics import Health, Metrics
from stream_gru.settings import Kafka, Settings
from tests.support.waiting import eventually


class Standing:
    """As much of an alerter."""

    def __init__(self) -> None:
        self.what: str | None = None
        self.has_work = True

    def problem(self) -> str | None:
        return self.what


class App:
    """As much of a Faust app as the service uses."""

    def __init__(self, *, start_error: BaseException | None = None) -> None:
        self.crashed = False
        self.crash_reason: BaseException | None = None
        self.on_startup_finished: Callable[[], Awaitable[None]] | None = None
        self.started, self.stopped = asyncio.Event(), asyncio.Event()
        self._start_error = start_error
        self.started_at: float | None = None
        self.alerter = Standing()
        self.conf = SimpleNamespace(id="plant-alerts")

    def finalize(self) -> None:
        pass

    async def start(self) -> None:
        if self._start_error:
            raise self._start_error
        assert self.on_startup_finished is not None
        await self.on_startup_finished()
        self.started.set()

    async def take_down(self) -> None:
        self.stopped.set()

    def crash(self, reason: BaseException | None) -> None:
        self.crashed, self.crash_reason = True, reason


class Told(Health):
    """Keeps everything that was said of the alerts."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[str | None] = []

    def report(self, part: str, problem: str | None = None) -> None:
        super().report(part, problem)
        self.all += [problem] if part == "alerts" else []


class Stage:
    """The alerting over a row of apps; an exception in their place is what a look at the topics raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *apps: App | BaseException, **settings: Any) -> None:
        self._apps = list(apps)
        self.metrics, self.health = Metrics(), Told()
        self.away: BrokerError | None = None  # what a fresh connection meets
        self.pulses: list[Pulse] = []
        monkeypatch.setattr(agent, "prepare", self._prepare)
        monkeypatch.setattr(agent, "create_app", self._create)
        monkeypatch.setattr(life, "diagnose", self._diagnose)
        monkeypatch.setattr(pulse, "diagnose", self._diagnose)
        for name in ("_POLL_S", "_TURN_S", "_BACKOFF_S", "_PROVED_S"):
            monkeypatch.setattr(life, name, 0.01)
        self.task = asyncio.create_task(life.run(Settings(**settings), self.metrics, self.health))

    async def _prepare(self, _: Any) -> int:
        first = self._apps[0]
        if isinstance(first, BaseException):
            raise self._apps.pop(0)  # type: ignore[misc] # it is the same one
        return 4

    def _create(self, _settings: Any, _metrics: Any, _partitions: Any, heard: Pulse) -> Any:
        self.pulses.append(heard)
        return self._apps.pop(0)

    async def _diagnose(self, _: Any) -> BrokerError | None:
        return self.away

    @property
    def restarts(self) -> float | None:
        return self.metrics.registry.get_sample_value("stream_gru_control_restarts_total")

    async def until(self, happened: Callable[[], bool]) -> None:
        await eventually(happened, "the stage", 10)

    async def end(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def test_it_is_made_anew_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = App(), App()
    stage = Stage(monkeypatch, first, second)
    async with asyncio.timeout(5):
        await first.started.wait()
        assert stage.health.parts == {"alerts": None}
        first.crash(RuntimeError("commit failed"))
        await second.started.wait()
    assert first.stopped.is_set()
    assert stage.restarts == 1
    await stage.until(lambda: stage.health.parts == {"alerts": None})
    await stage.end()
    assert second.stopped.is_set()


async def test_an_app_that_crashes_with_each_write_is_never_ready_again(monkeypatch: pytest.MonkeyPatch) -> None:
    apps = [App() for _ in range(4)]
    stage = Stage(monkeypatch, *apps)
    monkeypatch.setattr(life, "_PROVED_S", 60)
    for app in apps:
        await stage.until(app.started.is_set)
        app.crash(BrokerError("nobody may write alerts"))
    await stage.until(lambda: stage.restarts == 4)
    assert None not in stage.health.all[stage.health.all.index("nobody may write alerts") :]
    await stage.end()


async def test_it_says_why_it_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = App(start_error=LookupError("no such service"))
    stage = Stage(monkeypatch, failing)
    monkeypatch.setattr(life, "_BACKOFF_S", 60)
    await stage.until(lambda: stage.restarts == 1)
    assert failing.stopped.is_set()
    assert stage.health.parts == {"alerts": "LookupError: no such service"}
    assert not stage.health.ready
    await stage.end()


@pytest.mark.parametrize("where", ["topics", "start", "crash"])
async def test_a_cancellation_that_is_not_ours_is_a_crash(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    leaked = asyncio.CancelledError()
    first: App | BaseException = leaked if where == "topics" else App(start_error=leaked if where == "start" else None)
    second = App()
    stage = Stage(monkeypatch, first, second)
    if isinstance(first, App) and where == "crash":
        await stage.until(first.started.is_set)
        first.crash(leaked)
    await stage.until(second.started.is_set)
    assert stage.restarts == 1
    await stage.end()


async def test_it_waits_for_kafka_and_names_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    stage = Stage(monkeypatch, BrokerError("Kafka is away"), BrokerError("no topic anomalies"), app, role="alerter")
    await stage.until(lambda: stage.health.ready)
    assert stage.health.all[:4] == ["starting", "Kafka is away", "no topic anomalies", None]
    assert stage.restarts == 2
    assert stage.health.parts == {"alerts": None, "kafka": None}
    await stage.end()


async def test_an_app_stays_while_kafka_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    monkeypatch.setattr(life, "_STANDSTILL_S", 0.05)
    stage = Stage(monkeypatch, app)
    await stage.until(app.started.is_set)
    stage.away = BrokerError("no Kafka at one:9092")
    app.alerter.what = "Kafka does not acknowledge alerts"
    await stage.until(lambda: stage.health.parts["alerts"] == "no Kafka at one:9092")
    await asyncio.sleep(0.2)  # four times what would be a standstill
    assert not app.stopped.is_set()
    stage.away = app.alerter.what = None
    await stage.until(lambda: stage.health.ready)
    assert stage.restarts == 0
    await stage.end()


async def test_an_app_that_does_not_go_on_with_kafka_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = App(), App()
    monkeypatch.setattr(life, "_STANDSTILL_S", 0.05)
    stage = Stage(monkeypatch, first, second)
    await stage.until(first.started.is_set)
    first.alerter.what = "Kafka does not acknowledge alerts"
    await stage.until(second.started.is_set)
    assert first.stopped.is_set()
    await stage.until(lambda: stage.health.ready)
    await stage.end()


async def test_an_app_without_partitions_has_its_topics_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = App(), App()
    monkeypatch.setattr(life, "_LOOK_AT_TOPICS_S", 0.0)
    stage = Stage(monkeypatch, first, BrokerError("no topic anomalies"), second)
    await stage.until(first.started.is_set)
    first.alerter.has_work = False
    await stage.until(second.started.is_set)
    assert "no topic anomalies" in stage.health.all
    await stage.end()


async def test_two_processes_with_one_name_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    stage = Stage(monkeypatch, app, kafka=Kafka(group_instance_id="pump-7"))
    await stage.until(app.started.is_set)
    stage.pulses[0].replaced.set()
    with pytest.raises(SettingsError, match=r"group plant-alerts as kafka\.group_instance_id pump-7"):
        await stage.task
    assert app.stopped.is_set()


async def test_what_only_the_user_can_mend_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, SettingsError("kafka.ssl_cafile: there is no such file"))
    with pytest.raises(SettingsError, match="ssl_cafile"):
        await stage.task


@pytest.mark.parametrize(
    "refused", [BrokerRefusedError("Kafka refuses the password"), CredentialsError("there is no file password")]
)
async def test_a_refusal_ends_it_unless_kafka_has_let_it_in_before(
    monkeypatch: pytest.MonkeyPatch, refused: StreamGruError
) -> None:
    stage = Stage(monkeypatch, refused)
    with pytest.raises(type(refused)):
        await stage.task

    first, second = App(), App()
    stage = Stage(monkeypatch, first, refused, refused, second)
    await stage.until(first.started.is_set)
    first.crash(None)
    await stage.until(second.started.is_set)
    assert stage.restarts == 3
    await stage.end()
