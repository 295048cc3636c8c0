"""The life of the control plane: its Faust app is run, watched, taken down when something is wrong, and made anew.

While Kafka is away the app stays: its clients go on where they stopped once Kafka is back. It is made anew only when it
crashed, or when Kafka answers and it does not go on all the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from stream_gru.errors import BrokerError, BrokerRefusedError, CredentialsError, SettingsError, StreamGruError
from stream_gru.kafka import diagnose, explain
from stream_gru.kafka.pulse import KafkaWatch, Pulse
from stream_gru.metrics import Health, Metrics
from stream_gru.process.tasks import own
from stream_gru.settings import Settings

if TYPE_CHECKING:
    from stream_gru.alerts.agent import App

log = logging.getLogger(__name__)

HEALTH_PART = "alerts"  # of what /ready says
_PREPARE_S = 10.0  # for a look at the topics
_POLL_S = 0.2  # Faust has nothing that one could wait on for its crash
_TURN_S = 1.0  # between two looks at what Kafka answers
_BACKOFF_S, _LONGEST_BACKOFF_S = (
    0.5,
    5.0,
)  # at first, then doubled: it has to be back within 30 s of Kafka's return
_SETTLED_S = 60.0  # of running, and the next crash counts as the first again
_PROVED_S = 5.0  # after a crash: a right that is missing shows with the first write
_STANDSTILL_S = 30.0  # with a Kafka that answers, and the app is made anew
_LOOK_AT_TOPICS_S = 10.0  # without partitions, after which the topics are looked at
_START_S = 600.0  # to join the group and read a changelog of any size; then the app is made anew


class StandstillError(Exception):
    """Kafka answers, and the app does not go on."""


async def run(settings: Settings, metrics: Metrics, health: Health) -> None:
    """Keep an alerter running until cancelled.

    Raises `SettingsError`, and `BrokerRefusedError` where Kafka has never let us in: waiting does not mend those.
    """
    # Alone, it speaks for Kafka as well; beside a data plane, that one does.
    parts = (HEALTH_PART, "kafka") if settings.role == "alerter" else (HEALTH_PART,)
    await _Alerting(settings, metrics, Reports(health, parts)).run()


class Reports(Health):
    """Health of which one part is told under several names, and is not well before the app is ready."""

    def __init__(self, health: Health, parts: tuple[str, ...]) -> None:
        super().__init__()
        self._health = health
        self._parts = parts
        self.not_yet: str | None = "starting"  # why it can't be well

    def report(self, part: str = HEALTH_PART, problem: str | None = None) -> None:
        """Say that the alerter is ready, or why not."""
        del part
        for name in self._parts:
            self._health.report(name, problem or self.not_yet)


class _Alerting:
    def __init__(self, settings: Settings, metrics: Metrics, health: Reports) -> None:
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._was_connected = False
        self._attempts = 1  # to have a ready app, since there was one
        self._crashed = False  # the app before this one, though it had started

    async def run(self) -> None:
        failures = 0
        self._health.report()
        while True:
            began = time.monotonic()
            try:
                await own(self._live())
            except Exception as error:
                cause = await self._cause(error)
            if self._is_final(cause):
                raise cause
            self._health.not_yet = str(cause)
            self._health.report()
            self._metrics.control_restarts.inc()
            self._attempts += 1
            log.warning("alerts stopped, and start again: %s", cause)
            failures = 1 if time.monotonic() - began > _SETTLED_S else failures + 1
            delay = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2.0 ** min(failures - 1, 16))
            await asyncio.sleep(delay * random.uniform(0.75, 1.25))

    def _is_final(self, cause: Exception) -> bool:
        """Whether waiting is no use. A refusal, or a file of credentials that can't be read, may be a rotation."""
        if isinstance(cause, BrokerRefusedError | CredentialsError):
            return not self._was_connected
        return isinstance(cause, SettingsError)

    async def _live(self) -> None:
        """One app, from a look at its topics to what ends it, which is an error."""
        from stream_gru.alerts import agent

        partitions = await self._topics()
        self._was_connected = True
        pulse = Pulse(self._settings.kafka)
        app = agent.create_app(self._settings, self._metrics, partitions, pulse)
        parts = [asyncio.create_task(own(part)) for part in (self._until_crash(app), self._watch(app, pulse))]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _topics(self) -> int:
        """How wide they are. Raises `BrokerError` for what is wrong with them."""
        from stream_gru.alerts import agent

        try:
            async with asyncio.timeout(_PREPARE_S):
                return await agent.prepare(self._settings)
        except TimeoutError:
            servers = self._settings.kafka.bootstrap_servers
            raise BrokerError(f"Kafka at {servers} did not answer within {_PREPARE_S:g} s") from None

    async def _until_crash(self, app: App) -> None:
        """Run a Faust app; raises what crashed it."""

        async def on_startup_finished() -> None:
            app.started_at = time.monotonic()
            if not self._crashed:
                self._ready()

        app.on_startup_finished = on_startup_finished
        app.finalize()
        starting = asyncio.create_task(app.start())
        try:
            while not app.crashed:
                await asyncio.wait([starting], timeout=_POLL_S) if not starting.done() else await asyncio.sleep(_POLL_S)
                if starting.done():
                    starting.result()
            raise app.crash_reason or RuntimeError("the Faust app crashed and does not say why")
        finally:
            self._crashed = app.started_at is not None
            starting.cancel()
            await app.take_down()

    def _ready(self) -> None:
        log.info("alerts: ready%s", f", at attempt {self._attempts}" if self._attempts > 1 else "")
        self._attempts = 1
        self._health.not_yet = None
        self._health.report()

    async def _watch(self, app: App, pulse: Pulse) -> None:
        """Keep readiness true. Raises `StandstillError`, and `SettingsError` when another process took our place."""
        kafka = self._settings.kafka

        async def check() -> None:
            await self._topics()

        watch = KafkaWatch(kafka, pulse, self._health, part=HEALTH_PART, more=app.alerter.problem, check=check)
        began = going = looked = time.monotonic()
        while not pulse.replaced.is_set():
            await asyncio.sleep(_TURN_S)
            await watch.turn()
            now, problem = time.monotonic(), pulse.problem() or app.alerter.problem()
            if self._health.not_yet and app.started_at and now - app.started_at > _PROVED_S:
                self._ready()
            if watch.away or not problem:
                going = now
            if watch.away or app.alerter.has_work:
                looked = now
            elif now - looked > _LOOK_AT_TOPICS_S:  # nothing to do is what a missing topic looks like, to Faust
                await self._topics()
                looked = now
            if watch.away or app.started_at:
                began = now
            if now - going > _STANDSTILL_S:
                raise StandstillError(f"Kafka answers others, but not the alerter: {problem}")
            if now - began > _START_S:
                raise StandstillError(f"Kafka answers, but the alerter was not ready within {_START_S:g} s")
        raise SettingsError(
            f"another process joined group {app.conf.id} as kafka.group_instance_id {kafka.group_instance_id} and took "
            "this alerter's place; give each process a name of its own, or none"
        )

    async def _cause(self, error: Exception) -> Exception:
        """What ended an app, in words."""
        if isinstance(error, BrokerRefusedError | SettingsError | StandstillError):
            return error
        if found := await diagnose(self._settings.kafka):
            return found
        if isinstance(error, StreamGruError):
            return error
        if isinstance(error, KafkaError | OSError):
            return explain(error, self._settings.kafka)
        return RuntimeError(f"{type(error).__name__}: {error}")
