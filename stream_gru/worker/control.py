"""What operators may ask of a running worker (the commands topic): reset a series, reload the model, report."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from stream_gru import __version__, codecs
from stream_gru.models import bundle as bundles
from stream_gru.models.bundle import Bundle
from stream_gru.worker.assignment import Assignment
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.model import as_chosen, chosen_bundle
from stream_gru.worker.patience import Patience
from stream_gru.worker.source import ReadingSource

log = logging.getLogger(__name__)

_FOLLOW_S = 10.0  # between two looks at the group's model, where nobody asks for one


class Control:
    """Rule R18: what it changes is no record, so a replay of the last interval may give other outputs than before."""

    def __init__(
        self,
        parts: Parts,
        source: ReadingSource,
        checkpointer: Checkpointer,
        assignment: Assignment,
        patience: Patience,
    ) -> None:
        self._parts = parts
        self._source = source
        self._checkpointer = checkpointer
        self._assignment = assignment
        self._patience = patience
        self._changing = asyncio.Lock()  # of models, one after the other

    async def reset(self, series: bytes, topic: str | None = None, partition: int | None = None) -> list[str]:
        """Forget what was learned of `series` in every partition of this worker that knows it; which ones did.

        `topic` and `partition` narrow it: the same key on two partitions is two series.
        """
        found = []
        for live in list(self._parts.live.values()):
            if topic not in (None, live.tp.topic) or partition not in (None, live.tp.partition):
                continue
            arena = self._parts.engine.arena
            if arena.lookup(live.handle, [series])[0] < 0 and not live.complete:
                row = await self._stored(live, series)
                if row is not None and arena.lookup(live.handle, [series])[0] < 0:
                    arena.make_room(1)
                    arena.insert(live.handle, [series], [row])
            slots = arena.lookup(live.handle, [series])
            if slots[0] >= 0 and self._parts.live.get(live.tp) is live:
                # What was read before this moment stays covered by the row.
                arena.reset(slots, np.full(1, live.state.position - 1))
                found.append(f"{live.tp.topic}-{live.tp.partition}")
        return found

    async def reload(self, bundle: Path | None) -> dict[str, Any]:
        """Take another model, and make it the group's, so that whoever starts later takes it too."""
        parts, group = self._parts, self._parts.settings.kafka.group_id
        files = bundles.read(bundles.find(bundle))
        loaded = bundles.parse(files, str(bundles.find(bundle)))
        async with self._changing:
            now = parts.engine.bundle
            parts.require(loaded)  # raises before anything is touched
            if loaded.digest != now.digest:
                chosen, instead = as_chosen(loaded, files), {now.digest: now.name}
                await self._patience(lambda: parts.store.choose(group, chosen, instead))
            await self._serve(loaded)
            return {"model": loaded.name, "partitions": len(parts.live)}

    async def catch_up(self) -> None:
        """Take the group's model where another worker was given it and this one did not hear, or lacks the folder."""
        parts, group = self._parts, self._parts.settings.kafka.group_id
        async with self._changing:
            bundle = await self._patience(lambda: chosen_bundle(parts.store, group, parts.engine.bundle))
            if bundle is not None and bundle.digest != parts.engine.bundle.digest:
                parts.require(bundle)
                await self._serve(bundle)

    async def follow(self) -> None:
        """Catch up now and then, and at once where a partition can't be taken without; never returns."""
        outdated = self._assignment.outdated
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FOLLOW_S):
                    await outdated.wait()
            outdated.clear()
            await self.catch_up()

    async def report(self) -> dict[str, Any]:
        """What this worker is, holds and waits for."""
        parts = self._parts
        return {
            "version": __version__,
            "model": parts.engine.bundle.name,
            "device": str(parts.engine.device),
            "rows": len(parts.engine.arena),
            "row_bytes": parts.engine.layout.row_bytes,
            "health": parts.health.detail(),
            "partitions": {
                f"{tp.topic}-{tp.partition}": {
                    "position": live.state.position,
                    "stored": live.state.stored,
                    "lag": max(0, (parts.consumer.highwater(tp) or 0) - live.state.position),
                    "series": live.series,
                }
                for tp, live in sorted(parts.live.items())
            },
        }

    async def _stored(self, live: Live, series: bytes) -> bytes | None:
        store, seq = self._parts.store, live.state.confirmed_seq
        rows = await self._patience(lambda: store.load(live.id, live.owner, seq, [series]))
        return rows[0] if rows else None

    async def _serve(self, bundle: Bundle) -> None:
        """Drain, checkpoint, then the new identity and fresh rows under the same owners."""
        parts = self._parts
        await self._source.hold()
        try:
            await self._checkpointer.checkpoint(self._assignment.held)
            # From here to the reloads' checkpoints is one turn of the event loop: no other cut may come between.
            parts.engine.reload(bundle)
            parts.codec = codecs.load(parts.settings.input, parts.engine.steps)
            for live in parts.live.values():
                live.state.reload(parts.identity(live.state.identity))
            self._assignment.begin_anew()
            log.info("serving %s from now on; every series starts afresh", bundle.name)
            parts.metrics.model.info({"name": bundle.name, "digest": bundle.digest})
            await asyncio.gather(*map(self._checkpointer.adopt, list(parts.live.values())))
        finally:
            self._source.resume()
