"""The control plane is made anew after a crash, and can always be left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stream_gru import agents, alerting
from stream_gru.errors import BrokerError, SettingsError
from stream_gru.metrics import Health, Metrics
from stream_gru.settings import Settings


class App:
    """As much of a Faust app as the service uses."""

    def __init__(self, *, start_error: Exception | None = None, stops: bool = True) -> None:
        self.crashed = False
        self.crash_reason: BaseException | None = None
        self.on_startup_finished: Callable[[], Awaitable[None]] | None = None
        self.started, self.stopped = asyncio.Event(), asyncio.Event()
        self._start_error, self._stops = start_error, stops

    def finalize(self) -> None:
        pass

    async def start(self) -> None:
        if self._start_error:
            raise self._start_error
        assert self.on_startup_finished is not None
        await self.on_startup_finished()
        self.started.set()

    async def stop(self) -> None:
        self.stopped.set()
        while not self._stops:
            with contextlib.suppress(asyncio.CancelledError):  # as parts of Faust do
                await asyncio.sleep(0.3)
                self._stops = True

    def crash(self, reason: BaseException | None) -> None:
        self.crashed, self.crash_reason = True, reason


class Stage:
    """The service's alerts over a row of apps; an exception in their place is what preparing raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *apps: App | Exception) -> None:
        self._apps = list(apps)
        self.metrics, self.health = Metrics(), Health()
        monkeypatch.setattr(agents, "prepare", self._prepare)
        monkeypatch.setattr(agents, "create_app", lambda *_: self._apps.pop(0))
        monkeypatch.setattr(alerting, "_POLL_S", 0.01)
        monkeypatch.setattr(alerting, "_BACKOFF_S", 0.01)
        self.task = asyncio.create_task(alerting.run(Settings(), self.metrics, self.health))

    async def _prepare(self, _: Any) -> int:
        first = self._apps[0]
        if isinstance(first, Exception):
            raise self._apps.pop(0)  # type: ignore[misc] # it is the same one
        return 4

    @property
    def restarts(self) -> float | None:
        return self.metrics.registry.get_sample_value("stream_gru_control_restarts_total")

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
    assert stage.health.parts == {"alerts": None}
    await stage.end()
    assert second.stopped.is_set()


async def test_it_says_why_it_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = App(start_error=OSError("no route"))
    stage = Stage(monkeypatch, failing)
    monkeypatch.setattr(alerting, "_BACKOFF_S", 60)
    async with asyncio.timeout(5):
        await failing.stopped.wait()
    await asyncio.sleep(0.05)
    assert stage.restarts == 1
    assert stage.health.parts == {"alerts": "OSError: no route"}
    assert not stage.health.ready
    await stage.end()


async def test_it_waits_for_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    stage = Stage(monkeypatch, BrokerError("Kafka is away"), BrokerError("no topic anomalies"), app)
    async with asyncio.timeout(5):
        await app.started.wait()
    assert stage.restarts == 2
    await stage.end()


async def test_what_only_the_user_can_mend_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, SettingsError("kafka.ssl_cafile: there is no such file"))
    with pytest.raises(SettingsError, match="ssl_cafile"):
        await stage.task


async def test_an_app_that_does_not_stop_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerting, "_STOP_APP_S", 0.05)
    first, second = App(stops=False), App()
    stage = Stage(monkeypatch, first, second)
    async with asyncio.timeout(5):
        await first.started.wait()
        first.crash(None)
        await second.started.wait()
    assert "left behind" in caplog.text
    assert "does not say why" in caplog.text
    await stage.end()
