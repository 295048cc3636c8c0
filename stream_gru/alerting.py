"""The life of the control plane: its Faust app is run, taken down when something is wrong with it, and made anew."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from stream_gru.errors import SettingsError, StreamGruError
from stream_gru.metrics import Health, Metrics
from stream_gru.settings import Settings

if TYPE_CHECKING:
    from stream_gru.agents import App

log = logging.getLogger(__name__)

_STOP_APP_S = 6.0
_POLL_S = 0.2  # Faust has nothing that one could wait on for its crash
_BACKOFF_S, _MAX_BACKOFF_S = 1.0, 30.0


async def run(settings: Settings, metrics: Metrics, health: Health) -> None:
    """Keep an alerter running until cancelled. Raises `SettingsError` only: everything else may pass."""
    from stream_gru import agents

    backoff = _BACKOFF_S
    while True:
        started = time.monotonic()
        try:
            app = agents.create_app(settings, metrics, await agents.prepare(settings))
            await _until_crash(app, health)
        except SettingsError:
            raise
        except Exception as error:
            problem = str(error) if isinstance(error, StreamGruError) else f"{type(error).__name__}: {error}"
        if time.monotonic() - started > 2 * _MAX_BACKOFF_S:
            backoff = _BACKOFF_S
        health.report("alerts", problem)
        metrics.control_restarts.inc()
        log.warning("alerts stopped; starting again in %g s: %s", backoff, problem)
        await asyncio.sleep(backoff)
        backoff = min(2 * backoff, _MAX_BACKOFF_S)


async def _until_crash(app: App, health: Health) -> None:
    """Run a Faust app; raises what crashed it."""

    async def on_startup_finished() -> None:
        log.info("alerts: ready")
        health.report("alerts")

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
        # Not awaited as such: parts of it ignore cancellation.
        ending = asyncio.create_task(app.stop())
        _, late = await asyncio.wait([ending], timeout=_STOP_APP_S)
        starting.cancel()
        if late:
            log.warning("the Faust app did not stop in %g s and is left behind", _STOP_APP_S)
        elif error := ending.exception():
            log.warning("the Faust app did not stop cleanly (%s: %s)", type(error).__name__, error)
