"""One process: the data plane, the control plane, or both, from the first signal handler to the exit code.

The two share an event loop and nothing else. Both wait for a server that is away. Any other error of the data plane
ends the process: only a start from what is stored is right after it. One of the control plane does not: its Faust app
is taken down and made anew while the data plane goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from stream_gru.alerts import life
from stream_gru.errors import StreamGruError
from stream_gru.metrics import Health, Metrics, StatusServer
from stream_gru.process import garbage, logs
from stream_gru.process.tasks import own
from stream_gru.settings import Settings
from stream_gru.worker import commands

log = logging.getLogger(__name__)

_GRACE_S = 8.0  # for a clean end after a signal
_FAILED_GRACE_S = 2.5  # for the other parts once one has failed
_LAST_S = 0.5  # for what had to be cancelled


class Scorer(Protocol):
    """The data plane, as `stream_gru.worker.Worker` is."""

    metrics: Metrics
    health: Health

    @property
    def control(self) -> commands.Target | None:
        """What commands act on, while it is connected."""
        ...

    async def run(self) -> None:
        """Score until `stop`, or raise."""
        ...

    async def stop(self) -> None:
        """Have `run` finish what is in hand, and return."""
        ...


def run(settings: Settings, scorer: Callable[[Settings], Scorer] | None = None) -> int:
    """Run the planes that `settings.role` names until SIGTERM or SIGINT; returns the exit code.

    0 after a signal, 1 for an error, 2 for one that the user can mend; errors are logged to stderr. Where threads are
    left that would keep the interpreter from ending, the process ends here and now. `scorer` makes the data plane.
    """
    logs.to_stderr(settings.log_level)
    loop = asyncio.new_event_loop()
    code = loop.run_until_complete(_serve(settings, scorer or _worker))
    # Not asyncio.run: it waits for every task and every thread, and Faust's do not always end.
    left = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if left or asyncio.all_tasks(loop):
        log.debug("left behind: %d threads, %d tasks", len(left), len(asyncio.all_tasks(loop)))
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    loop.close()
    return code


async def _serve(settings: Settings, make_scorer: Callable[[Settings], Scorer]) -> int:
    stop = asyncio.Event()
    planes: dict[str, asyncio.Task[None]] = {}

    def start(name: str, plane: Coroutine[Any, Any, None]) -> None:
        planes[name] = asyncio.create_task(own(plane), name=name)

    with _signals(stop):
        try:
            scorer = make_scorer(settings) if settings.role != "alerter" else None
        except Exception as error:
            return _exit_code("the data plane", error)
        metrics, health = (scorer.metrics, scorer.health) if scorer else (Metrics(), Health())
        server = None if scorer else StatusServer(settings.metrics.host, settings.metrics.port, metrics, health)
        if scorer:
            start("the data plane", scorer.run())
            start("commands", commands.listen(settings, lambda: scorer.control, metrics))
        if settings.role != "scorer":
            health.report("alerts", "starting")  # now, so that nothing is ready without it
            start("alerts", life.run(settings, metrics, health))
        tidying = asyncio.create_task(garbage.collect())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([*planes.values(), stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        tidying.cancel()
        if scorer:
            await scorer.stop()
        for name, plane in planes.items():
            if name != "the data plane":
                plane.cancel()
        _, late = await asyncio.wait(planes.values(), timeout=_GRACE_S if stop.is_set() else _FAILED_GRACE_S)
        if late:
            names = ", ".join(plane.get_name() for plane in late)
            log.warning("%s did not end in time; what was not confirmed will be done again", names)
            for plane in late:
                plane.cancel()
            await asyncio.wait(late, timeout=_LAST_S)
        if server:
            server.close()
    codes = [_exit_code(name, _error(plane, stop.is_set())) for name, plane in planes.items()]
    return max(codes)


def _worker(settings: Settings) -> Scorer:
    from stream_gru.worker.worker import Worker

    return Worker(settings)


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets `stop`; the next one ends the process there and then."""

    def on_signal() -> None:
        if stop.is_set():
            log.warning("a second signal: ending at once")
            os._exit(1)
        log.info("stopping")
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _error(plane: asyncio.Task[None], asked: bool) -> BaseException | None:
    """What ended a plane that should not have ended as it did."""
    if not plane.done() or plane.cancelled():  # by us: what a library cancels is an error, see `own`
        return None
    return plane.exception() or (None if asked else RuntimeError("it ended unasked"))


def _exit_code(name: str, error: BaseException | None) -> int:
    if error is None:
        return 0
    if isinstance(error, StreamGruError):
        log.error("%s: %s", name, error)
        return 2
    log.error("%s failed", name, exc_info=error)
    return 1
