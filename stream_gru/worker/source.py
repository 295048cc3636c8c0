"""The loop that takes readings in. `ReadingSource._score` is the way of every record, from top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, NoOffsetForPartitionError, OffsetOutOfRangeError

from stream_gru.columns import Forecasts, Readings
from stream_gru.kafka import unpacking
from stream_gru.process.watchdog import Watchdog
from stream_gru.worker.assignment import Assignment
from stream_gru.worker.encoder import Encoder
from stream_gru.worker.guarding import Guarding, refused
from stream_gru.worker.intake import Admission, Polled, begin, flatten, stepped
from stream_gru.worker.live import Live, Parts
from stream_gru.worker.outbox import Outbox

_POLL_MS = 200  # for a record to come where there is none: as long as a `stop` may have to wait
_LONGEST_WAIT_S = 1.0  # without a turn for the watchdog
_FIRST_BATCH_RECORDS = 512  # small, until a step has told what a batch costs
_STEP_S = 0.2  # how long one step may keep the event loop, and with it the heartbeats, waiting
_UNSET_S = 0.02  # between two polls of a partition whose position is about to be set

Fetched = Mapping[TopicPartition, Sequence[Any]]


def fitting(most: int, took: float, limit: int) -> int:
    """How many readings to ask for next, after a step of `most` or fewer took so long.

    Readings of a thousand series are one wave, those of one series a thousand waves: only time tells.
    """
    return max(1, min(limit, int(most * min(2.0, _STEP_S / max(took, 1e-6)))))


class ReadingSource:
    """One task: polls, and scores what it gets, batch after batch."""

    def __init__(
        self, parts: Parts, watchdog: Watchdog, admission: Admission, outbox: Outbox, assignment: Assignment
    ) -> None:
        self._parts = parts
        self._watchdog = watchdog
        self._guarding = Guarding(parts)
        self._admission = admission
        self._encoder = Encoder(parts)
        self._outbox = outbox
        self._assignment = assignment
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._stopping = False
        self._first: TopicPartition | None = None  # to poll
        self._most = min(_FIRST_BATCH_RECORDS, parts.settings.worker.max_batch)  # readings to ask for

    def stop(self) -> None:
        """Let `run` return after the batch in hand."""
        self._stopping = True
        self._open.set()

    async def hold(self) -> None:
        """Take nothing in until `resume`; returns when the batch in hand is done and everything is acknowledged."""
        self._open.clear()
        await self._idle.wait()
        while self._outbox.inflight:
            await self._outbox.progress(_LONGEST_WAIT_S)

    def resume(self) -> None:
        """Go on after `hold`."""
        self._open.set()

    async def run(self) -> None:
        """Score until `stop`. Waiting for Kafka or the store counts as a turn, being stuck does not."""
        settings = self._parts.settings
        while not self._stopping:
            self._watchdog.turn()
            if await self._held():
                continue
            self._idle.clear()
            if (guarded := self._guarding.turn()) is not None:
                await self._read_guarded(guarded)
                continue
            polled = await self._poll()
            await self._pass_over(polled)
            if polled:
                await self._score(polled)
                del polled  # it may be large, and the next one is there before its name is free
                if not self._behind():
                    await asyncio.sleep(settings.worker.linger_ms / 1000)  # a fuller batch costs less a reading

    async def _held(self) -> bool:
        """Take nothing in while outputs or checkpoints lag, or `hold` asks for it. Heartbeats need no polls."""
        if not self._open.is_set():
            self._idle.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_WAIT_S):
                    await self._open.wait()
            return True
        settings, now = self._parts.settings, time.monotonic()
        late = settings.state.checkpoint_interval_s + settings.state.request_timeout_s
        stale = any(now - live.checkpointed > late for live in self._parts.live.values())
        if stale or self._outbox.inflight >= settings.worker.max_inflight:
            await self._outbox.progress(_LONGEST_WAIT_S)
            return True
        return False

    async def _poll(self) -> Fetched:
        """A share of each partition's readings; if there are none, whatever comes first within a while.

        With shares a batch has many series, which makes few waves, and its outputs go out to all partitions at once.
        """
        live = self._parts.live
        before = {tp: one for tp, one in live.items() if not one.guard.on(one.state.position)}
        polled: dict[TopicPartition, Sequence[Any]] = {}
        order, unpacked = list(before), unpacking.spent()
        first = order.index(self._first) if self._first in before else 0
        for tp in order[first:] + order[:first]:
            if unpacking.spent() - unpacked >= self._parts.settings.input.max_batch_bytes:
                self._first = tp  # what was polled takes enough memory; the next batch begins where this one ended
                break
            share = self._guarding.most(before[tp], max(1, self._most // len(before)))
            polled.update(await self._getmany(tp, timeout_ms=0, max_records=share))
        if not polled and len(before) == len(live):
            polled.update(await self._getmany(timeout_ms=_POLL_MS, max_records=self._most))
        elif not polled and before:
            polled.update(await self._getmany(*before, timeout_ms=_POLL_MS, max_records=self._most))
        elif not polled:
            await asyncio.sleep(_POLL_MS / 1000)
        return self._ours(polled, before)

    def _ours(self, polled: dict[TopicPartition, Sequence[Any]], before: Mapping[TopicPartition, Live]) -> Fetched:
        """Without records that must be asked for again, because a rebalance came between `before` and now.

        Of those of a partition that was live before nobody can tell to which of its two assignments they belong; those
        of a new one may have to be read with care.
        """
        live = self._parts.live
        for tp in polled.keys() & live.keys():
            now, was = live[tp], before.get(tp)
            if now is not was and (was is not None or self._guarding.careful(now)):
                del polled[tp]
                self._parts.consumer.seek(tp, now.state.position)
        return polled

    async def _read_guarded(self, live: Live) -> None:
        """Read what may have ended the last owner of a partition: nothing else, and in pieces (rule R21)."""
        before = {live.tp: live}
        polled = dict(await self._getmany(live.tp, timeout_ms=_POLL_MS, max_records=self._most))
        records = self._ours(polled, before).get(live.tp)
        if not records:
            await self._pass_over({})
            if live.state.active:
                await self._guarding.set_aside(live)
            return

        offsets = [record.offset for record in records]
        for piece in live.guard.pieces(offsets):
            if not await self._ready(live):
                break
            unread = self._guarding.blames(live, offsets[piece])
            await self._score({live.tp: records[piece]}, unread=unread)
            live.guard = live.guard.past(offsets[piece][-1] + 1)
        await self._guarding.tell([live])

    async def _ready(self, live: Live) -> bool:
        """Wait until a piece may be scored; False when none may any more."""
        while not self._stopping and await self._held():
            self._watchdog.turn()
        self._idle.clear()
        return not self._stopping and self._parts.live.get(live.tp) is live

    async def _getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> Fetched:
        """A rebalance may keep aiokafka's `getmany` far longer than its timeout; that is no stall."""
        consumer = self._parts.consumer
        poll = asyncio.ensure_future(consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records))
        while not poll.done():
            await asyncio.wait({poll}, timeout=_LONGEST_WAIT_S)
            self._watchdog.turn()
        try:
            polled: Fetched = poll.result()
        except NoOffsetForPartitionError:
            await asyncio.sleep(_UNSET_S)  # a partition that is about to be restored and sought
            return {}
        except OffsetOutOfRangeError as error:
            for tp in error.args[0]:
                self._assignment.out_of_range(tp)
            return {}
        return polled

    async def _pass_over(self, polled: Fetched) -> None:
        """Follow the consumer past offsets without records for us, such as aborted transactions at a log's end."""
        for tp, live in list(self._parts.live.items()):
            if tp not in polled and live.state.active:
                # Taken away meanwhile, or about to be: then aiokafka would wait for a position that nobody sets.
                with contextlib.suppress(IllegalStateError, TimeoutError):
                    async with asyncio.timeout(0):
                        position = await self._parts.consumer.position(tp)
                    if live.state.active and position > live.state.position:
                        live.state.advance(position)

    def _behind(self) -> bool:
        """Whether more readings are known to wait."""
        highwater = self._parts.consumer.highwater
        return any((highwater(tp) or 0) > live.state.position for tp, live in self._parts.live.items())

    async def _score(self, records: Fetched, *, unread: bool = False) -> None:
        """The way of a batch; a checkpoint and a commit follow by the clock. `unread`: as dead letters, unseen."""
        parts, stage = self._parts, self._parts.metrics.stage
        polled = flatten(records, parts.live)
        if not len(polled):
            return
        if not unread:
            await self._guarding.tries(polled)
        self._measure(polled)
        with stage.labels("decode").time():
            if unread:
                decoded = refused(parts.codec, polled.timestamp)
            else:
                decoded = parts.codec.decode(polled.keys, polled.payloads, polled.timestamp)
        with stage.labels("load").time():
            admitted = await self._admission.admit(polled, decoded)
        # From here on nothing is awaited: a cut is another turn of the event loop, and falls between two batches. Where
        # one of these raises, nothing of its batch is stored: it stays torn, or its outputs unacknowledged.
        begun = begin(polled)
        with stage.labels("step").time():
            forecasts = self._step(admitted.readings)
        stepped(begun)
        with stage.labels("encode").time():
            outputs = self._encoder.encode(polled, decoded, admitted, forecasts)
        self._outbox.put(outputs, begun)

    def _measure(self, polled: Polled) -> None:
        metrics = self._parts.metrics
        metrics.batch.observe(len(polled))
        metrics.runs.inc()
        metrics.stage.labels("queue").observe(max(0.0, time.time() - int(polled.timestamp.min()) / 1000))

    def _step(self, readings: Readings) -> Forecasts:
        """Step, and learn from how long it took how much to ask for next."""
        began = time.perf_counter()
        forecasts = self._parts.engine.step(readings)
        took = time.perf_counter() - began
        self._most = fitting(self._most, took, self._parts.settings.worker.max_batch)
        return forecasts
