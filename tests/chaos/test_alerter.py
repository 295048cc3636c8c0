"""The alerter alone while Kafka is away: the same process, which says why, and every alert once.

One case: ``pytest tests/chaos/test_alerter.py -k 'killed and 60s and loaded'``.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_gru.kafka import aiokafka_options
from stream_gru.settings import Settings
from tests.chaos.outages import LENGTHS, LINES_S, NOTICED_S, RESUMED_S, How, Watch, begin, end
from tests.chaos.servers import Site
from tests.support.alert_records import payload
from tests.support.waiting import eventually
from tests.support.workers import crew

RUNS_A_SECOND = 20
CHAOS = pytest.mark.chaos


class Runs:
    """Writes runs to the anomalies topic, each of a series of its own, and knows which alerts they make."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next = 0
        self.wanted: Counter[tuple[str, str]] = Counter()

    async def write(self, n: int) -> None:
        """Begin and end `n` runs."""
        async with self._producer() as producer:
            for _ in range(n):
                await self._run(producer)

    def _producer(self) -> AIOKafkaProducer:
        """However long Kafka is away, what it sends is there once, and in order."""
        return AIOKafkaProducer(**aiokafka_options(self._settings.kafka), enable_idempotence=True, linger_ms=5)

    async def _run(self, producer: AIOKafkaProducer) -> None:
        at, series = 2 * self._next, f"s{self._next}"
        self._next += 1
        for value in (payload(at, series, alert=True), payload(at + 1, series, anomaly=False)):
            await self._send(producer, value)
        self.wanted.update([(f"readings-0-{at}", "firing"), (f"readings-0-{at}", "resolved")])

    async def _send(self, producer: AIOKafkaProducer, value: bytes) -> None:
        while True:
            try:
                await producer.send(self._settings.topics.anomalies, value, b"key", partition=0)
            except KafkaError:  # its buffer is full: this one was not taken
                continue
            return

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Runs keep coming meanwhile."""
        flowing = True

        async def flow() -> None:
            async with self._producer() as producer:
                while flowing:
                    await self._run(producer)
                    await asyncio.sleep(1 / RUNS_A_SECOND)

        task = asyncio.create_task(flow())
        enough = self.wanted.total() + 2 * RUNS_A_SECOND  # alerts, two for each run
        try:
            await eventually(lambda: self.wanted.total() >= enough, "the runs")
            yield
        finally:
            flowing = False
            await task

    async def told(self, within_s: float) -> Counter[tuple[str, str]]:
        """The alerts there are once none is missing, or when time has run out; and those of a moment more."""
        found: Counter[tuple[str, str]] = Counter()
        options = aiokafka_options(self._settings.kafka)
        deadline = time.monotonic() + within_s
        async with AIOKafkaConsumer(
            self._settings.topics.alerts, **options, auto_offset_reset="earliest", enable_auto_commit=False
        ) as consumer:
            while True:
                missing = self.wanted.keys() - found.keys()
                polled = await consumer.getmany(timeout_ms=200 if missing else 2000)
                for record in (record for records in polled.values() for record in records):
                    alert = msgspec.json.decode(record.value)
                    found[alert["id"], alert["status"]] += 1
                if not polled and (not missing or time.monotonic() > deadline):
                    return found


async def outage(site: Site, how: How, seconds: float, *, loaded: bool, noticed: bool = False) -> None:
    """All that must hold. `noticed`: it lasts until that is so."""
    runs = Runs(site.direct)
    with crew(site.settings, site.folder, "a", role="alerter") as alerter:
        await alerter.ready_within("a", 30)
        await runs.write(20)
        assert await runs.told(20) == runs.wanted
        watch = Watch(alerter, ("kafka",), {"a": alerter.workers["a"].pid})

        async def away() -> None:
            await asyncio.to_thread(begin, site.broker, how)
            began = time.monotonic()
            while (after := time.monotonic() - began) < seconds or (noticed and not watch.all_noticed):
                await asyncio.to_thread(watch.look, after)
                assert after < NOTICED_S + 1 or watch.noticed, alerter.ready("a")
                await asyncio.sleep(0.3)
            if watch.noticed:
                said = alerter.ready("a")[1]["alerts"]
                assert site.broker.through_proxy in said, said
            await asyncio.to_thread(end, site.broker, how)

        if loaded:
            async with runs.flowing():
                await away()
                back = time.monotonic()
                await alerter.ready_within("a", RESUMED_S)
        else:
            await away()
            back = time.monotonic()
            await alerter.ready_within("a", RESUMED_S)
        took = time.monotonic() - back
        await runs.write(5)
        told = await runs.told(RESUMED_S)
        lines = watch.most_lines("a")
        assert alerter.stop() == {"a": 0}
    print(f"noticed after {watch.noticed}, ready {took:.1f} s after, {told.total()} alerts, {lines} lines a second")  # noqa: T201
    assert told.keys() == runs.wanted.keys()
    # Where the session ends between an alert and the record of it, the alert is told again under its id.
    assert how != "killed" or told == runs.wanted, f"{(told - runs.wanted).total()} too many"
    assert seconds < NOTICED_S or watch.noticed["a"] <= NOTICED_S
    assert lines < LINES_S


@CHAOS
@pytest.mark.parametrize("load", ["idle", "loaded"])
@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("how", ["killed", "frozen", "black-hole"])
async def test_the_alerter_outlives_kafka(site: Site, how: How, seconds: float, load: str) -> None:
    await outage(site, how, seconds, loaded=load == "loaded")


async def test_the_alerter_outlives_a_broker_that_was_killed(site: Site) -> None:
    """The short form that every change is tested with."""
    await outage(site, "killed", 8, loaded=True, noticed=True)  # longer than a session
