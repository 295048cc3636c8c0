"""Word of what is scored, and the trial of what it was left of."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stream_gru.protocol.guard import ReadingGuard
from stream_gru.stores.memory import MemoryStore
from tests.support.one_worker import Play, World


async def test_word_is_left_of_what_is_scored_and_suspects_are_read_alone(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "suspects"
    async with play(world, name=name) as stage:
        await stage.scored()
        await stage.stop()
        guard = ReadingGuard().tries(30, 39)
        left = await stage.left()
        await stage.store.mark(stage.at(0), "nobody", str(guard))  # refused: not the owner
        assert left.reading == ""
        owner = "dead"
        identity = left.identity
        assert identity is not None
        await stage.store.assign(stage.at(0), owner, identity)
        await stage.store.mark(stage.at(0), owner, str(guard))
    world.add(10)
    batches: list[int] = []
    async with play(world, name=name) as stage:
        observe = stage.worker.metrics.batch.observe

        def noting(size: int) -> None:
            batches.append(size)
            observe(size)

        monkeypatch.setattr(stage.worker.metrics.batch, "observe", noting)
        await stage.scored()
        assert batches == [1] * 10
        await stage.stop()
        assert (await stage.left()).reading == ""


async def test_suspects_of_one_partition_are_acquitted_before_those_of_another_are_tried(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash at the second one's would be blamed on the last record of the first, which no checkpoint covers yet."""
    name = "two-suspects"
    async with play(world, name=name) as stage:
        await stage.scored()
        await stage.stop()
        for partition, first in ((0, 30), (1, 20)):
            identity = (await stage.left(partition)).identity
            assert identity is not None
            await stage.store.assign(stage.at(partition), "dead", identity)
            await stage.store.mark(stage.at(partition), "dead", str(ReadingGuard().tries(first, first + 4)))
    world.add(5, 0)
    world.add(5, 1)
    trying: list[tuple[int, int | None]] = []
    mark = MemoryStore.mark_soon

    async def noting(self: MemoryStore, words: Any) -> None:
        for partition, _, word in words:
            tried = msgspec.json.decode(word, type=ReadingGuard).trying
            trying.append((partition.partition, None if tried is None else tried.first))
        await mark(self, words)

    monkeypatch.setattr(MemoryStore, "mark_soon", noting)
    async with play(world, name=name, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(lambda: len(set(world.ids("forecasts"))) == 60)
    assert trying[: trying.index((1, 20))] == [*((0, offset) for offset in range(30, 35)), (0, None)]
