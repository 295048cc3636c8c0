"""Tasks that end for reasons of their own, and clients that are put away without a say in ours.

aiokafka and Faust cancel tasks of theirs and now and then let the `CancelledError` out to whoever waits. Taken for a
cancellation of ours it would end a plane as if somebody had asked for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
_AGAIN_S = 1.0  # between two cancellations of a task that goes on


class LeakedCancellationError(Exception):
    """A `CancelledError` that came out of a library; nobody had cancelled the task that met it."""


async def own(work: Awaitable[T]) -> T:
    """What `work` returns. Raises `CancelledError` only where this very task was cancelled, else the error above."""
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise LeakedCancellationError("a client library cancelled its own work") from error


async def heed(work: Awaitable[T]) -> T:
    """What `work` returns. Raises `CancelledError` also where `work` met one and swallowed it.

    `asyncio.wait_for` does that before Python 3.12 when what it waits for is done in the same turn of the event loop;
    redis sends each command through it.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - nothing is awaited outside a task
    before = task.cancelling()
    result = await work
    if task.cancelling() > before:
        raise asyncio.CancelledError
    return result


class Tasks(asyncio.TaskGroup):
    """A group that ends: a task that goes on though it was cancelled is cancelled again.

    Libraries swallow a cancellation now and then, and the group would wait for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: set[asyncio.Task[Any]] = set()

    def create_task(self, *work: Any, **options: Any) -> asyncio.Task[Any]:
        """As `TaskGroup.create_task`."""
        task = super().create_task(*work, **options)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def __aexit__(self, *raised: Any) -> None:
        insisting = asyncio.create_task(self._insist())
        try:
            await super().__aexit__(*raised)
        finally:
            insisting.cancel()

    async def _insist(self) -> None:
        while True:
            await asyncio.sleep(_AGAIN_S)
            for task in [one for one in self._running if one.cancelling()]:
                task.cancel()


async def put_away(*closing: Awaitable[Any], within_s: float = 5.0) -> None:
    """Wait for clients to close, side by side and no longer than that.

    What they raise or leak stays with them: a client that can't say goodbye is gone all the same.
    """
    tasks = [asyncio.ensure_future(one) for one in closing]
    for task in tasks:
        task.add_done_callback(_let_go)
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=within_s)
        for task in late:
            task.cancel()


def _let_go(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("a client did not close cleanly (%s: %s)", type(error).__name__, error)
