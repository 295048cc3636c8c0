"""Reading with care what an earlier owner may have died of (rule R21); `stream_gru.protocol.guard` decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from stream_gru.codecs import Codec, Decoded
from stream_gru.columns import Ints
from stream_gru.protocol.guard import ALONE, DEATHS
from stream_gru.records.dead_letters import Reason
from stream_gru.worker.intake import Polled
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

    async def tries(self, polled: Polled) -> None:
        """Say that these records, first to last of each partition, are about to be scored."""
        for rows in polled.spans:
            first, last = polled.offset[rows.start], polled.offset[rows.stop - 1]
            rows.live.guard = rows.live.guard.tries(int(first), int(last))
        await self.tell([rows.live for rows in polled.spans])

    async def set_aside(self, live: Live) -> None:
        """There are no records to be had of it now: the others may go first."""
        live.guard = live.guard.past(live.state.position)
        await self.tell([live])
        self._aside[live] = time.monotonic() + _ASIDE_S

    def blames(self, live: Live, offsets: Sequence[int]) -> bool:
        """Whether this piece is a record that is a dead letter unread."""
        blamed = live.guard.blames(offsets)
        if blamed is None:
            return False
        if blamed is not live.guard:
            log.error(
                "%s: %d workers in a row ended while they scored the record at offset %d; it is a dead letter now",
                live.id, DEATHS, offsets[0],
            )  # fmt: skip
        live.guard = blamed
        return True

    async def tell(self, lives: Sequence[Live]) -> None:
        """Leave word of what is being scored; before the turn of another partition with suspects, that nothing is.

        Else what ends the worker in that turn would be blamed on the last record of this one.
        """
        await self._parts.store.mark_soon([(live.id, live.owner, str(live.guard)) for live in lives])
