"""Room in the arena: rows that the store holds go, so that others may come."""

from __future__ import annotations

from collections.abc import Callable

from stream_gru.engine.arena import ArenaFullError
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.live import Live, Parts


class Room:
    """Free slots for series that are not resident."""

    def __init__(self, parts: Parts, checkpointer: Checkpointer, turn: Callable[[], None]) -> None:
        """`turn` tells the watchdog that waiting is not stalling."""
        self._parts = parts
        self._checkpointer = checkpointer
        self._turn = turn

    async def make(self, rows: int) -> None:
        """Evict until `rows` more fit; where too many have changed, a checkpoint comes first (rules R7, R8)."""
        parts = self._parts
        while True:
            try:
                evicted = parts.engine.arena.make_room(rows)
                break
            except ArenaFullError:
                self._turn()
                await self._checkpointer.checkpoint(lambda: list(parts.live.values()))
        owners: dict[int, Live] = {live.handle: live for live in parts.live.values()}
        for handle, series in evicted.items():
            parts.metrics.evictions.inc(len(series))
            if handle in owners:
                owners[handle].complete = False
