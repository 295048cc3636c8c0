"""Ends a process whose event loop or source task makes no turn: a stuck worker that looks alive is the worst kind."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable

from stream_gru.metrics import Health

log = logging.getLogger(__name__)

EXIT_STALLED = 70  # EX_SOFTWARE of sysexits.h
_TICK_S = 0.5  # a fraction of the shortest limit that is of use


class Watchdog:
    """A thread that counts its own ticks since the last `turn`.

    It counts ticks, not the clock: a process that was suspended as a whole (SIGSTOP, a laptop's lid) was not stalled.
    """

    def __init__(
        self, health: Health, unready_after_s: float, exit_after_s: float, end: Callable[[int], None] = os._exit
    ) -> None:
        self._health = health
        self._unready_after, self._exit_after = unready_after_s / _TICK_S, exit_after_s / _TICK_S
        self._end = end
        self._ticks = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def turn(self) -> None:
        """Called by the source task at every turn of its loop, also while it waits for Kafka or Redis."""
        self._ticks = 0

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _say_where(self) -> None:
        """To stderr, where it is stuck: the threads, and what each task waits for."""
        faulthandler.dump_traceback(all_threads=True)
        for task in asyncio.all_tasks(self._loop):
            task.print_stack(file=sys.stderr)

    def _watch(self) -> None:
        while not self._closed.wait(_TICK_S):
            self._ticks += 1
            stalled = self._ticks > self._unready_after
            self._health.stalled = f"no turn of the source task for {self._ticks * _TICK_S:.0f} s" if stalled else None
            if self._ticks > self._exit_after:
                self._say_where()
                log.critical("%s: ending the process", self._health.stalled)
                logging.shutdown()
                self._end(EXIT_STALLED)
                return
