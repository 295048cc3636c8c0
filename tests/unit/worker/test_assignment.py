"""What becomes of partitions that are given, taken away, or taken by another."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.errors import UnknownMemberIdError

from stream_gru.models import bundle
from stream_gru.stores.memory import MemoryStore
from stream_gru.worker import control, taking
from stream_gru.worker.model import as_chosen
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


async def test_a_fence_drops_a_partition_and_stops_its_delivery_at_once(world: World, play: Play) -> None:
    """Records that are delivered before the next seek would pass for those of the next assignment."""
    async with play(world) as stage:
        await stage.scored()
        first = next(live for live in stage.lives if live.tp == FIRST)
        consumer, commands = world.consumer, stage.worker.control
        assert consumer is not None
        assert commands is not None
        commands._checkpointer._fences.met(first)
        assert first not in stage.lives
        assert consumer._paused == {FIRST}
        await stage.until(lambda: len(stage.lives) == 2 and not consumer._paused)


@pytest.mark.parametrize("meets", ["a checkpoint", "a load"])
async def test_whoever_meets_a_fence_drops_the_partition(world: World, play: Play, meets: str) -> None:
    async with play(world, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(lambda: len(world.ids("forecasts")) == 50)
        commands = stage.worker.control
        assert commands is not None
        first = next(live for live in stage.lives if live.tp == FIRST)
        await stage.left(0)  # a fence
        if meets == "a checkpoint":
            await commands._checkpointer.checkpoint(lambda: [first])
        else:
            first.complete = False  # as if not all of its rows fitted
            world.add(1)
            world.logs[FIRST][-1] = replace(world.logs[FIRST][-1], key=b"never seen")
        await stage.until(lambda: first not in stage.lives)
        await stage.until(lambda: len(stage.lives) == 2)
        world.add(5)
        await stage.until(lambda: f"{TOPIC}-0-{world.end(FIRST) - 1}" in world.ids("forecasts"))


async def test_one_that_is_fenced_while_others_are_restored_is_taken_again(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers, restore = asyncio.Event(), asyncio.Event(), MemoryStore.restore

    async def slow(self: MemoryStore, partition: Any, *args: Any) -> Any:
        if partition.partition == SECOND.partition:
            asked.set()
            await answers.wait()
        async for rows in restore(self, partition, *args):
            yield rows

    monkeypatch.setattr(MemoryStore, "restore", slow)
    monkeypatch.setattr(taking, "_TOGETHER_PARTITIONS", 1)
    async with play(world) as stage:
        await stage.until(lambda: asked.is_set() and bool(stage.lives))
        first = stage.lives[0]
        await stage.left(0)  # a fence
        await stage.until(lambda: first not in stage.lives)
        answers.set()
        await stage.until(lambda: {live.tp for live in stage.lives} == {FIRST, SECOND})


async def test_a_partition_of_a_replaced_model_is_taken_with_the_groups_at_once(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_FOLLOW_S", 3600.0)
    async with play(world) as stage:
        await stage.scored()
        served = stage.worker._parts.engine.bundle  # type: ignore[union-attr] # it is connected
        files = bundle.read(bundle.DEFAULT)
        other = bundle.parse(files, "another worker's")
        chosen = as_chosen(other, files)
        await stage.store.choose(stage.settings.kafka.group_id, chosen, {served.digest: served.name})
        consumer = world.consumer
        assert consumer is not None
        await consumer.take(FIRST)
        await consumer.give([FIRST])
        await stage.until(lambda: {live.state.identity.model for live in stage.lives} == {other.digest})
        world.add(5)
        await stage.scored()


async def test_rows_of_a_replaced_model_are_dropped_in_the_store_before_anything_is_read(
    world: World, play: Play
) -> None:
    name = "replaced"
    async with play(world, name=name) as stage:
        await stage.scored()
        served = stage.lives[0].state.identity
        await stage.stop()
        files = bundle.read(bundle.DEFAULT)
        chosen = as_chosen(bundle.parse(files, "another worker's"), files)
        await stage.store.choose(stage.settings.kafka.group_id, chosen, {served.model: served.name})
    async with play(world, name=name, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(lambda: len(stage.lives) == 2)
        left = await stage.left()
        assert (left.identity.model, left.rows, left.offset) == (chosen.digest, 0, 30)
