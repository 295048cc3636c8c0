"""Whose cancellation it is, and clients that close badly."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import nullcontext, suppress

import pytest

from stream_gru.process import tasks
from stream_gru.process.tasks import LeakedCancellationError, own, put_away


async def leak() -> None:
    """What aiokafka's `stop` does: waits for a task that it cancelled, and lets the outcome out."""
    inner = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    inner.cancel()
    await inner


async def test_a_leaked_cancellation_is_an_error() -> None:
    with pytest.raises(LeakedCancellationError):
        await own(leak())
    task = asyncio.create_task(own(leak()))
    await asyncio.wait([task])
    assert not task.cancelled(), "a task group would take it for a task that somebody ended"
    assert isinstance(task.exception(), LeakedCancellationError)


async def test_our_own_cancellation_stays_one() -> None:
    task = asyncio.create_task(own(asyncio.sleep(60)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_results_and_errors_pass() -> None:
    async def seven() -> int:
        return 7

    async def fail() -> None:
        raise ValueError("no")

    assert await own(seven()) == 7
    with pytest.raises(ValueError, match="no"):
        await own(fail())


async def test_what_closes_badly_is_put_away_all_the_same() -> None:
    closed, ended, unheard = [], asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))

    async def fail() -> None:
        raise OSError("the broker is away")

    async def hang() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def close() -> None:
        closed.append(True)

    began = time.monotonic()
    await put_away(fail(), leak(), hang(), close(), within_s=0.2)
    assert closed == [True]
    assert time.monotonic() - began < 5
    async with asyncio.timeout(5):
        await ended.wait()  # what is late is not left running
    gc.collect()
    assert unheard == [], "asyncio would log an exception that nobody asked for"
    await put_away()


async def test_a_cancellation_that_was_swallowed_is_heeded() -> None:
    async def swallow() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "done all the same"

    task = asyncio.create_task(tasks.heed(swallow()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await tasks.heed(asyncio.sleep(0, "done")) == "done"


async def test_what_is_done_after_a_cancellation_is_not_disturbed() -> None:
    async def clean_up() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return await tasks.heed(asyncio.sleep(0, "clean"))
        return "not cancelled"

    task = asyncio.create_task(clean_up())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "clean"


@pytest.mark.parametrize("fails", [True, False])
async def test_a_group_ends_though_a_client_swallows_a_cancellation(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_AGAIN_S", 0.05)
    swallowed = []

    async def connect() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            swallowed.append(True)
        await asyncio.sleep(60)

    async def work() -> None:
        await asyncio.sleep(0)
        if fails:
            raise ZeroDivisionError

    async with asyncio.timeout(20):
        with pytest.raises(ExceptionGroup) if fails else nullcontext():
            async with tasks.Tasks() as group:
                connecting = group.create_task(connect())
                await group.create_task(work())
                connecting.cancel()
    assert swallowed == [True]
