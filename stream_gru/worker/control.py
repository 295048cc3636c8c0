"""What operators may ask of a running worker (the commands topic): reset a series, reload the model, report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from stream_gru import __version__, codecs
from stream_gru.models import bundle as bundles
from stream_gru.stores import Identity
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.patience import Patience
from stream_gru.worker.source import Source


class Control:
    """Rule R18: what it changes is no record, so a replay of the last interval may give other outputs than before."""

    def __init__(
        self, parts: Parts, source: Source, checkpoint: Callable[[], Awaitable[None]], patience: Patience
    ) -> None:
        self._parts = parts
        self._source = source
        self._checkpoint = checkpoint
        self._patience = patience

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
        """Take another model: drain, checkpoint, then its identity and fresh rows under the same owner."""
        # These raise before anything is touched.
        bundles.load(bundle).description.context.require(self._parts.settings.input.covariates)
        await self._source.hold()
        try:
            await self._checkpoint()
            parts = self._parts
            parts.engine.reload(bundle)
            parts.codec = codecs.load(parts.settings.input, parts.engine.steps)
            for live in list(parts.live.values()):
                await self._adopt(live)
            name, digest = parts.engine.bundle.name, parts.engine.bundle.digest
            parts.metrics.model.info({"name": name, "digest": digest})
            return {"model": name, "partitions": len(parts.live)}
        finally:
            self._source.resume()

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

    async def _adopt(self, live: Live) -> None:
        engine, was = self._parts.engine, live.state.identity
        identity = Identity(was.topic_id, was.partitions, was.buckets, engine.bundle.digest, engine.layout.version)
        point = live.state.reload(identity)
        writes = live.state.writes(point, (), (), 1, was.topic_id)
        await self._patience(lambda: self._parts.store.write(live.id, writes), lambda: live.state.owner == live.owner)
        live.state.confirmed(point)
        live.series, live.complete = 0, True
