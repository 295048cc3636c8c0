"""Reading with care what an earlier owner may have died of (rule R21); `stream_gru.guard` decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from stream_gru.batch import Ints
from stream_gru.codecs import Codec, Decoded
from stream_gru.dead_letters import Reason
from stream_gru.guard import DEATHS, Guard
from stream_gru.stores import Outcome
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.patience import Patience

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
    """Which guarded partition is read now, and word in the store of what of it is tried."""

    def __init__(self, parts: Parts, patience: Patience, fenced: Callable[[Live], None]) -> None:
        self._parts = parts
        self._patience = patience
        self._fenced = fenced
        self._aside: dict[Live, float] = {}

    def turn(self) -> Live | None:
        """The partition to read from alone, if any is guarded; one at a time, or an end would blame several."""
        now = time.monotonic()
        guarded = [live for _, live in sorted(self._parts.live.items()) if live.guard.on]
        self._aside = {live: until for live, until in self._aside.items() if until > now and live in guarded}
        return next((live for live in guarded if live not in self._aside), None)

    async def nothing(self, live: Live, position: int) -> None:
        """There are no records to be had of it now, and the consumer stands at `position`."""
        if not await self._keep(live, live.guard.past(position)) or not live.guard.on:
            return
        self._aside[live] = time.monotonic() + _ASIDE_S

    async def read(
        self,
        live: Live,
        records: Sequence[Any],
        ready: Callable[[], Awaitable[bool]],
        score: Callable[[Sequence[Any], bool], Awaitable[None]],
    ) -> None:
        """Score records of a guarded partition piece by piece.

        `ready` waits until one may be scored, and says False when none may any more; `score` is told whether the piece
        is a dead letter unread.
        """
        offsets = [record.offset for record in records]
        for piece in live.guard.pieces(offsets):
            some = offsets[piece]
            if not await ready():
                return
            blamed = live.guard.blames(some)
            if blamed is not None:
                self._tell(live, some[0])
                live.guard = blamed
            elif live.guard.on and not await self._keep(live, live.guard.tries(some)):
                return
            await score(records[piece], blamed is not None)
            was_on, now = live.guard.on, live.guard.past(some[-1] + 1)
            if was_on and not now.on:
                if not await self._keep(live, now):
                    return
                log.info("%s: what may have ended its last owner is read; at full speed from %d", live.id, some[-1] + 1)
            live.guard = now

    async def _keep(self, live: Live, guard: Guard) -> bool:
        """Leave word of it. False: the partition is lost."""
        owner, store = live.owner, self._parts.store
        outcome = await self._patience(
            lambda: store.mark(live.id, owner, str(guard)), lambda: self._parts.live.get(live.tp) is live
        )
        if outcome is Outcome.OK:
            live.guard = guard
            return True
        if outcome is Outcome.FENCED and self._parts.live.get(live.tp) is live:
            self._fenced(live)
        return False

    def _tell(self, live: Live, offset: int) -> None:
        if offset not in live.guard.refused:
            log.error(
                "%s: %d workers in a row ended while they scored the record at offset %d; it goes to the dead letters",
                live.id, DEATHS, offset,
            )  # fmt: skip
