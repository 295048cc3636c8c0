"""Waiting for what happens, and not for a time in which it should have happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def eventually(happened: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Ask again and again, in this loop: what asks must not block. `wait_until` in a thread is for what does."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        await asyncio.sleep(0.02)
