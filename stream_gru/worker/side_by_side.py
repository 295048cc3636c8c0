"""Work on many partitions at once, and how a line of the log names them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TypeVar

from aiokafka import TopicPartition

S = TypeVar("S")
T = TypeVar("T")
_AT_ONCE_PARTITIONS = 16  # more would only wait for the same store and broker, each with a share of their time limits
_NAMED_PARTITIONS = 5  # in a line of the log; of more it says how many


async def side_by_side(items: Iterable[S], work: Callable[[S], Awaitable[T]]) -> list[T]:
    """`work` for each, some at a time; its results in order. The first error ends all of it."""
    turns = asyncio.Semaphore(_AT_ONCE_PARTITIONS)

    async def one(item: S) -> T:
        async with turns:
            return await work(item)

    running = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*running))
    except BaseException:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        raise


def named(tps: Collection[TopicPartition]) -> str:
    """Some partitions for people: their names, or how many there are."""
    names = [f"{tp.topic}-{tp.partition}" for tp in sorted(tps)]
    more = f" and {len(names) - _NAMED_PARTITIONS} more" if len(names) > _NAMED_PARTITIONS else ""
    return ", ".join(names[:_NAMED_PARTITIONS]) + more or "nothing"
