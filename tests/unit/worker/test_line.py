"""The way of a record through a running worker: what is begun when, and what holds where a station of it raises."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stream_gru.protocol.guard import handed_over
from stream_gru.stores.memory import MemoryStore
from stream_gru.worker.encoder import Encoder
from stream_gru.worker.outbox import Outbox
from tests.support.one_worker import FIRST, Play, Stage, World


def engine(stage: Stage) -> Any:
    parts = stage.worker._parts
    assert parts is not None
    return parts.engine


async def test_a_batch_is_begun_before_its_step_and_stepped_after_it(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with play(world) as stage:
        await stage.scored()
        seen: list[tuple[str, int, bool]] = []
        live = next(live for live in stage.lives if live.tp == FIRST)

        def watch(owner: Any, name: str) -> None:
            original = getattr(owner, name)

            def noting(*args: Any) -> Any:
                seen.append((name, live.state.position, live.state.torn))
                return original(*args)

            monkeypatch.setattr(owner, name, noting)

        watch(engine(stage), "step")
        watch(Encoder, "encode")
        watch(Outbox, "put")
        world.add(5)
        await stage.scored()
        assert seen == [("step", 35, True), ("encode", 35, False), ("put", 35, False)]


async def test_nothing_else_happens_between_a_step_and_the_outbox(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut in between would store rows whose outputs may never come."""
    async with play(world) as stage:
        await stage.scored()
        turns: list[str] = []
        step, put = engine(stage).step, Outbox.put

        def stepping(readings: Any) -> Any:
            asyncio.get_running_loop().call_soon(turns.append, "another turn")
            return step(readings)

        def putting(self: Outbox, *args: Any) -> None:
            turns.append("put")
            put(self, *args)

        monkeypatch.setattr(engine(stage), "step", stepping)
        monkeypatch.setattr(Outbox, "put", putting)
        world.add(5)
        await stage.scored()
        assert turns == ["put", "another turn"]


@pytest.mark.parametrize("station", ["step", "encode"])
async def test_where_a_station_raises_nothing_of_its_batch_is_stored(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch, station: str
) -> None:
    """Its rows have changed and its outputs are lost: stored now, a replay would leave those outputs out."""
    async with play(world, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(lambda: len(world.ids("forecasts")) == 50)
        control = stage.worker.control
        assert control is not None
        lives = stage.lives
        await control._checkpointer.checkpoint(lambda: lives)
        writes: list[Any] = []
        attempts: list[asyncio.Task[None]] = []
        owner: Any = engine(stage) if station == "step" else Encoder
        original = getattr(owner, station)

        async def write(*args: Any) -> Any:
            writes.append(args)

        def raising(*args: Any) -> Any:
            original(*args)
            attempts.append(asyncio.create_task(control._checkpointer.checkpoint(lambda: lives)))
            raise ValueError("a bug")

        monkeypatch.setattr(MemoryStore, "write", write)
        monkeypatch.setattr(owner, station, raising)
        world.add(10)
        with pytest.raises(ValueError, match="a bug"):
            await stage.ended()
        [refusal] = await asyncio.gather(*attempts, return_exceptions=True)
        assert isinstance(refusal, ValueError)
        assert writes == []
        assert (await stage.left()).offset == 30


async def test_a_partition_that_is_taken_away_after_its_step_raised_is_not_handed_over(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next owner must know that this one may have ended by what it was scoring."""
    async with play(world, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(lambda: len(world.ids("forecasts")) == 50)
        taken: list[asyncio.Task[None]] = []
        step, consumer = engine(stage).step, world.consumer
        assert consumer is not None

        def raising(readings: Any) -> Any:
            step(readings)
            taken.append(asyncio.create_task(consumer.take(FIRST)))
            raise ValueError("a bug")

        monkeypatch.setattr(engine(stage), "step", raising)
        world.add(10)
        with pytest.raises(ValueError, match="a bug"):
            await stage.ended()
        await asyncio.gather(*taken)
        reading = (await stage.left()).reading
        assert '"first":30,"end":40' in reading
        assert not handed_over(reading)
