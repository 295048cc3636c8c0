"""Reading with care what an earlier owner may have died of (rule R21); `stream_gru.protocol.guard` decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from stream_gru.codecs import Codec, Decoded
from stream_gru.columns import Ints
from stream_gru.protocol.guard import ALONE, DEATHS
from stream_gru.records.dead_letters import Reason
from stream_gru.worker.live import Live, Parts

log = logging.getLogger(__name__)

_ASIDE_S = 1.0  # how long a partition that gives no records lets the others go first


def refused(codec: Codec, timestamp: Ints) -> Decoded:
    """What a codec would say of records that nobody looks into."""
    rows = len(timestamp)
    decoded = codec.decode([None] * rows, [None] * rows, timestamp)
    decoded.bad = dict.fromkeys(range(rows), Reason.CRASHED_WORKER)
    decoded.detail = dict.fromkeys(range(rows), f"{DEATHS} workers in a row ended while they scored it")
    return decoded


class Guarding:
    """Word in the store of what is about to be scored, and which partition's suspects are tried now."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._aside: dict[Live, float] = {}

    def turn(self) -> Live | None:
        """The partition to read from alone, if any has suspects; one at a time, or an end would blame several."""
        now = time.monotonic()
        guarded = [live for _, live in sorted(self._parts.live.items()) if live.guard.on(live.state.position)]
        self._aside = {live: until for live, until in self._aside.items() if until > now and live in guarded}
        return next((live for live in guarded if live not in self._aside), None)

    def careful(self, live: Live) -> bool:
        """Whether it may not be read like any other."""
        return live.state.position < live.calm or live.guard.on(live.state.position)

    def most(self, live: Live, records: int) -> int:
        """How many of `records` to ask of a partition: few until what was there when its last owner ended is read."""
        return min(records, ALONE) if live.state.position < live.calm else records

    async def tries(self, spans: Sequence[tuple[Live, int, int]]) -> None:
        """Say that these records, first to last of each partition, are about to be scored."""
        for live, first, last in spans:
            live.guard = live.guard.tries(first, last)
        await self._parts.store.mark_soon([(live.id, live.owner, str(live.guard)) for live, _, _ in spans])

    async def set_aside(self, live: Live) -> None:
        """There are no records to be had of it now: the others may go first."""
        live.guard = live.guard.past(live.state.position)
        await self._parts.store.mark_soon([(live.id, live.owner, str(live.guard))])
        self._aside[live] = time.monotonic() + _ASIDE_S

    async def read(
        self,
        live: Live,
        records: Sequence[Any],
        ready: Callable[[], Awaitable[bool]],
        score: Callable[[Sequence[Any], bool], Awaitable[None]],
    ) -> None:
        """Score records of a partition with suspects, piece by piece.

        `ready` waits until one may be scored, and says False when none may any more; `score` is told whether the piece
        is a dead letter unread.
        """
        offsets = [record.offset for record in records]
        for piece in live.guard.pieces(offsets):
            some = offsets[piece]
            if not await ready():
                break
            blamed = live.guard.blames(some)
            if blamed is not None and blamed is not live.guard:
                log.error(
                    "%s: %d workers in a row ended while they scored the record at offset %d; it is a dead letter now",
                    live.id, DEATHS, some[0],
                )  # fmt: skip
            live.guard = blamed or live.guard
            await score(records[piece], blamed is not None)
            live.guard = live.guard.past(some[-1] + 1)
        # Before another partition's turn: what ends the worker then would be blamed on the last record of this one.
        await self._parts.store.mark_soon([(live.id, live.owner, str(live.guard))])
