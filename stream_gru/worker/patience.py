"""Waiting for a store or a broker that does not answer: the same call again, aloud, for as long as it takes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stream_gru.errors import StoreUnavailableError
from stream_gru.metrics import Health, Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_S = 0.5  # between two tries: well within a second a server that is back is used again


class Patience:
    """Repeats a call to the store until it answers; `/ready` says so meanwhile."""

    def __init__(self, health: Health, metrics: Metrics, turn: Callable[[], None] = lambda: None) -> None:
        self._health = health
        self._metrics = metrics
        self._turn = turn  # tells the watchdog that waiting is not stalling

    async def __call__(self, call: Callable[[], Awaitable[T]], wanted: Callable[[], bool] = lambda: True) -> T | None:
        """The answer, or None once the call is no longer `wanted`. A repeated call has the same bytes (rule R3)."""
        while wanted():
            self._turn()
            try:
                answer = await call()
            except StoreUnavailableError as error:
                log.warning("waiting for the store: %s", error)
                self._health.report("store", str(error))
                self._metrics.writer_errors.labels("store").inc()
                await asyncio.sleep(RETRY_S * random.uniform(0.75, 1.25))
            else:
                self._health.report("store", None)
                return answer
        return None
