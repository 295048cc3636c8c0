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
