"""Rows make room for others once the store has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stream_gru.engine.arena import ArenaFullError
from stream_gru.metrics import Metrics
from stream_gru.worker.room import Room


class Arena:
    """Two rows of partition 1 and one of a partition that is gone, which may go after a checkpoint."""

    def __init__(self) -> None:
        self.changed = True

    def make_room(self, rows: int) -> dict[int, list[bytes]]:
        if self.changed:
            raise ArenaFullError(f"no room for {rows}")
        return {1: [b"a", b"b"], 9: [b"c"]}


async def test_a_checkpoint_comes_first_where_too_many_have_changed() -> None:
    arena, done = Arena(), []
    evicted, other = SimpleNamespace(handle=1, complete=True), SimpleNamespace(handle=2, complete=True)
    parts: Any = SimpleNamespace(
        engine=SimpleNamespace(arena=arena), live={"a": evicted, "b": other}, metrics=Metrics()
    )

    async def checkpoint(lives: Any) -> None:
        done.append(lives())
        arena.changed = False

    checkpointer: Any = SimpleNamespace(checkpoint=checkpoint)
    await Room(parts, checkpointer, lambda: done.append("turn")).make(3)
    assert done == ["turn", [evicted, other]]
    assert not evicted.complete, "a series that is not resident may be in the store"
    assert other.complete
    assert parts.metrics.registry.get_sample_value("stream_gru_state_evictions_total") == 3
