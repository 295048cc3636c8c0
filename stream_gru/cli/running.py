"""Run a command that goes on until it is stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def until_stopped(main: Coroutine[Any, Any, T]) -> T | None:
    """What `main` returns; None when Ctrl-C or SIGTERM ended it first, after it has cleaned up."""

    async def run() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs belongs to a task
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await main

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        return None
