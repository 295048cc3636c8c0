"""What becomes of partitions that are given, taken away, or taken by another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import UnknownMemberIdError

from stream_gru.stores.memory import MemoryStore
from tests.support.one_worker import FIRST, SECOND, TOPIC, Play, World


async def test_what_a_callback_of_the_consumer_raises_ends_it(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with play(world, state={"checkpoint_interval_s": 3600}) as stage:  # no other task meets it
        await stage.until(lambda: len(world.ids("forecasts")) == 50)

        async def fail(*_: Any) -> None:
            raise ValueError("a bug")

        monkeypatch.setattr("stream_gru.worker.checkpoint.Checkpointer.checkpoint", fail)
        consumer = world.consumer
        assert consumer is not None
        await consumer.take(FIRST)
        with pytest.raises(ValueError, match="a bug"):
            await stage.ended()


async def test_what_is_taken_away_is_stored_handed_over_and_dropped(world: World, play: Play) -> None:
    async with play(world, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(lambda: len(world.ids("forecasts")) == 50)
        engine, consumer = stage.worker._parts.engine, world.consumer  # type: ignore[union-attr] # it is connected
        assert consumer is not None
        assert len(engine.arena) == 4
        await consumer.take(FIRST)
        assert world.committed[FIRST] == 30
        assert SECOND not in world.committed
        assert len(engine.arena) == 2
        left = await stage.left(0)
        assert (left.offset, left.reading) == (30, "")
        world.add(5, 0)
        await consumer.give([FIRST])
        await stage.until(lambda: len(world.ids("forecasts")) == 55)


async def test_what_is_taken_away_while_it_is_restored_is_given_up(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers, assign = asyncio.Event(), asyncio.Event(), MemoryStore.assign

    async def slow(self: MemoryStore, *args: Any) -> Any:
        asked.set()
        await answers.wait()
        return await assign(self, *args)

    monkeypatch.setattr(MemoryStore, "assign", slow)
    async with play(world) as stage:
        await stage.until(asked.is_set)
        consumer = world.consumer
        assert consumer is not None
        await consumer.take(FIRST)
        assert stage.parts["assignment"] == f"{TOPIC}-1: being restored"
        answers.set()
        await stage.until(lambda: stage.worker.health.ready)
        assert [live.tp for live in stage.lives] == [SECOND]


async def test_a_partition_that_another_took_is_dropped_and_the_group_is_asked(world: World, play: Play) -> None:
    async with play(world) as stage:
        await stage.scored()
        first = next(live for live in stage.lives if live.tp == FIRST)
        await stage.left(0)  # a fence
        await stage.until(lambda: first not in stage.lives)
        await stage.until(lambda: len(stage.lives) == 2)
        world.add(10)
        await stage.scored()
        assert len(world.ids("forecasts")) == 60, "nothing twice"

        world.refused.append(UnknownMemberIdError())
        await stage.left(0)
        await stage.until(lambda: "waiting for the group" in (stage.parts["assignment"] or ""))
        assert [live.tp for live in stage.lives] == [SECOND]
        consumer = world.consumer
        assert consumer is not None
        await consumer.take(FIRST)
        await consumer.give([FIRST])
        await stage.until(lambda: stage.worker.health.ready)
