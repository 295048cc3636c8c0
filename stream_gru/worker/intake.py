"""Kafka records -> readings with a slot each: decode, then admit (find, load or make the row of every series)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from aiokafka import TopicPartition

from stream_gru.codecs import Decoded
from stream_gru.columns import Ints, Readings
from stream_gru.errors import FencedError
from stream_gru.kafka import unpacking
from stream_gru.kafka.unpacking import Unreadable
from stream_gru.protocol.partition import Batch, record_crc
from stream_gru.records.dead_letters import Reason
from stream_gru.worker.fences import Fences
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.patience import Patience
from stream_gru.worker.room import Room


@dataclass(slots=True)
class PartitionRows:
    """One partition's rows ``start:stop`` of a batch."""

    live: Live
    start: int
    stop: int
    crc: int  # of the last record


@dataclass(slots=True)
class Polled:
    """N records of several partitions as columns."""

    spans: list[PartitionRows]
    keys: list[bytes | None]
    payloads: list[bytes | None]
    timestamp: Ints  # (N,) Kafka's own, epoch ms
    offset: Ints  # (N,)
    unreadable: dict[int, Unreadable] = field(default_factory=dict)  # rows that stand for a whole record batch

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True)
class Admitted:
    """The good readings of a batch: `index` says which rows of it they are."""

    index: Ints
    readings: Readings


def flatten(polled: Mapping[TopicPartition, Sequence[Any]], live: Mapping[TopicPartition, Live]) -> Polled:
    """Columns of what `getmany` returned; records of partitions that are not live are left for whoever owns them."""
    spans: list[PartitionRows] = []
    records: list[Any] = []
    for tp, some in polled.items():
        if (owner := live.get(tp)) is not None and some:
            start, last = len(records), some[-1]
            records += some
            spans.append(PartitionRows(owner, start, len(records), record_crc(last.key, last.value)))
    payloads = [record.value for record in records]
    return Polled(
        spans,
        [record.key for record in records],
        payloads,
        np.fromiter((record.timestamp for record in records), np.int64, len(records)),
        np.fromiter((record.offset for record in records), np.int64, len(records)),
        # Looked for only where there may be any.
        {row: r for row, r in enumerate(records) if isinstance(r, Unreadable)} if None in payloads else {},
    )


class Begun(NamedTuple):
    """A partition's records of a batch that is being scored, or whose outputs are on their way."""

    live: Live
    batch: Batch


def begin(polled: Polled) -> list[Begun]:
    """Tell every partition that its records of this batch are about to be stepped: the position moves behind them."""
    return [
        Begun(rows.live, rows.live.state.begin(polled.offset[rows.start : rows.stop], rows.crc))
        for rows in polled.spans
    ]


def stepped(begun: Sequence[Begun]) -> None:
    """Tell every partition that its rows reflect this batch: from now on a cut may come."""
    for one in begun:
        one.live.state.stepped(one.batch)


class Admission:
    """Gives every good reading the slot of its series. The only place where the source waits for the store."""

    def __init__(self, parts: Parts, patience: Patience, room: Room, fences: Fences) -> None:
        unpacking.limit(parts.settings.input.max_batch_bytes)
        self._parts = parts
        self._patience = patience
        self._room = room
        self._fences = fences

    async def admit(self, polled: Polled, decoded: Decoded) -> Admitted:
        """Rows that can't be admitted are added to ``decoded.bad``. Drops the spans of partitions lost meanwhile."""
        for row, batch in polled.unreadable.items():
            decoded.bad[row], decoded.detail[row] = batch.reason, batch.detail
        slots = np.full(len(polled), -1, np.int64)
        for span in list(polled.spans):
            try:
                slots[span.start : span.stop] = await self._span(span, decoded)
            except FencedError:
                if self._mine(span.live):
                    self._fences.met(span.live)
        polled.spans[:] = [span for span in polled.spans if self._mine(span.live)]
        mine = np.zeros(len(polled), bool)
        for span in polled.spans:
            mine[span.start : span.stop] = True
        index = np.flatnonzero(mine & (slots >= 0))
        readings = Readings(slots[index], polled.offset[index], decoded.timestamp[index], decoded.value[index])
        return Admitted(index, readings)

    async def _span(self, span: PartitionRows, decoded: Decoded) -> Ints:
        arena, live = self._parts.engine.arena, span.live
        if not self._mine(live):  # its rows are gone from the arena, and its handle may be another partition's
            raise FencedError(f"{live.id}: lost while the batch waited")
        series = decoded.series[span.start : span.stop]
        slots = arena.lookup(live.handle, series)
        arena.touch(slots[slots >= 0])
        bad = [row - span.start for row in decoded.bad if span.start <= row < span.stop]
        slots[bad] = -1
        absent = set(np.flatnonzero(slots < 0).tolist()).difference(bad)
        self._parts.metrics.hits.inc(len(series) - len(bad) - len(absent))
        if not absent:
            return slots
        # In the order of the log, so that which series are one too many does not depend on the batch.
        wanted = list(dict.fromkeys(series[row] for row in sorted(absent)))
        self._parts.metrics.misses.inc(len(wanted))
        stored = await self._load(live, wanted)
        new = [key for key in wanted if key not in stored]
        allowed = max(0, self._parts.settings.state.max_series - live.series)
        await self._room.make(len(stored) + min(len(new), allowed))
        if not self._mine(live):
            raise FencedError(f"{live.id}: lost while room was made")
        arena.insert(live.handle, list(stored), list(stored.values()))
        arena.insert(live.handle, new[:allowed], None)
        live.series += len(new[:allowed])
        slots = arena.lookup(live.handle, series)
        slots[bad] = -1
        for row in absent:
            if slots[row] < 0:
                limit = self._parts.settings.state.max_series
                decoded.refuse(span.start + row, Reason.TOO_MANY_SERIES, f"the partition has {limit} series already")
        return slots

    async def _load(self, live: Live, series: list[bytes]) -> dict[bytes, bytes]:
        if live.complete:
            return {}
        store, seq = self._parts.store, live.state.confirmed_seq
        rows = await self._patience(lambda: store.load(live.id, live.owner, seq, series), lambda: self._mine(live))
        if rows is None or not self._mine(live):
            raise FencedError(f"{live.id}: lost while rows were loaded")
        return {key: row for key, row in zip(series, rows, strict=True) if row is not None}

    def _mine(self, live: Live) -> bool:
        return self._parts.live.get(live.tp) is live
