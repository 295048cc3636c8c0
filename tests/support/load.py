"""Readings for workers: a known log, and now and then something in it that is no reading."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_gru.kafka import aiokafka_options
from stream_gru.settings import Settings


class Load:
    """Numbered readings of some series: a cycle, noise, spikes, and now and then something that is none."""

    def __init__(self, settings: Settings, series: int, *, seed: int = 0) -> None:
        self._settings = settings
        self._series = series
        self._rng = np.random.default_rng(seed)
        self._start = int(time.time() * 1000) - 3_600_000
        self.sent = 0
        self.clock_ms = 0  # how far the clock of the readings is off

    async def send(self, n: int, rate: float | None = None) -> None:
        """Send `n` more, at `rate` a second or as fast as it goes."""
        topic = self._settings.topics.readings[0]
        producer = AIOKafkaProducer(**aiokafka_options(self._settings.kafka), linger_ms=5, max_batch_size=1 << 18)
        await producer.start()
        try:
            began, first = time.perf_counter(), self.sent
            futures = []
            while self.sent < first + n:
                futures.append(await producer.send(topic, **self.next()))
                if rate and self.sent % 50 == 0:
                    await asyncio.sleep(max(0.0, began + (self.sent - first) / rate - time.perf_counter()))
            await asyncio.gather(*futures)
        finally:
            await producer.stop()

    @contextlib.asynccontextmanager
    async def flowing(self, rate: float) -> AsyncIterator[None]:
        """Readings keep coming meanwhile; each of them is sent, and once."""
        flowing = True

        async def flow() -> None:
            while flowing:
                await self.send(max(1, int(rate / 4)), rate)

        task = asyncio.create_task(flow())
        try:
            yield
        finally:
            flowing = False
            await task

    async def flow(self, rate: float, producer_settings: Settings | None = None) -> None:
        """Send `rate` a second until cancelled, through whatever happens to Kafka.

        What an outage leaves unsent is lost, or sent twice: the log says what the readings are.
        """
        topic = self._settings.topics.readings[0]
        options = aiokafka_options((producer_settings or self._settings).kafka)
        while True:
            producer = AIOKafkaProducer(**options, linger_ms=5)
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                try:
                    await producer.start()
                    due = time.monotonic()
                    while True:
                        due = max(due + 0.1, time.monotonic() - 1)
                        async with asyncio.timeout(30):
                            sent = [await producer.send(topic, **self.next()) for _ in range(max(1, int(rate / 10)))]
                            await asyncio.gather(*sent)
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                finally:
                    with contextlib.suppress(KafkaError, OSError, TimeoutError):
                        await asyncio.wait_for(producer.stop(), 5)
            await asyncio.sleep(0.5)

    def next(self) -> dict[str, bytes]:
        """Key and value of the next reading."""
        record = {"key": self._key(), "value": self._payload()}
        self.sent += 1
        return record

    def _key(self) -> bytes:
        return b"sensor-%05d" % (self.sent % self._series)

    def _payload(self) -> bytes:
        tick, draw = self.sent // self._series, self._rng.random()
        start = self._start + self.clock_ms
        if draw < 0.002:
            return b'{"timestamp": "yesterday", "value": 1}'
        if draw < 0.004:
            return b'{"timestamp": %d, "value": null}' % (start + tick * 1000)
        value = 20 + 5 * np.sin(tick / 8 + self.sent % self._series) + self._rng.normal(0, 0.3)
        value += 30 * (draw > 0.995)
        late = 5000 if 0.004 < draw < 0.006 else 0
        return json.dumps({"timestamp": start + tick * 1000 - late, "value": round(value, 4)}).encode()
