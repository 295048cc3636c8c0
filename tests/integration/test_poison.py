"""Row 22: one record that crashes the process costs three crashes, and then only it is a dead letter."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from stream_gru.kafka import aiokafka_options
from stream_gru.settings import Settings, environment
from stream_gru.tools.processes import Child
from tests.support import poisoned
from tests.support.check import states
from tests.support.forked import Worker
from tests.support.load import Load
from tests.support.progress import begun, drained
from tests.support.reading import read

CRASHES = 3


async def poison(settings: Settings, partition: int) -> str:
    """Send it; the id that its output would have."""
    value = b'{"timestamp": %d, "value": 1.0, "note": "POISON"}' % int(time.time() * 1000)
    async with AIOKafkaProducer(**aiokafka_options(settings.kafka)) as producer:
        sent = await producer.send_and_wait(
            settings.topics.readings[0], key=b"sensor-00003", value=value, partition=partition
        )
    return f"{sent.topic}-{sent.partition}-{sent.offset}"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With as much in hand at a crash as by default, and for static members.

    One that comes back has its partitions at once, and not once the group has buried the one before it.
    """
    kafka = settings.kafka.model_copy(update={"group_instance_id": "only"})
    state = settings.state.model_copy(update={"checkpoint_interval_s": 1.0})
    return settings.model_copy(update={"role": "scorer", "kafka": kafka, "state": state})


@pytest.mark.parametrize("before", [50, 6000], ids=["a small batch", "a large one"])
async def test_row_22_a_record_that_crashes_its_worker(settings: Settings, tmp_path: Path, before: int) -> None:
    load = Load(settings, 200)
    env = environment(settings)

    def start() -> Child:
        return Worker(tmp_path / "worker.log", env, poisoned.main)

    worker = start()
    try:
        await load.send(2000)
        await drained(settings, worker)
        worker.stop()  # so that all of what follows is there when it starts again
        await load.send(before)
        culprit = await poison(settings, 1)
        await load.send(before)
        for _ in range(CRASHES):
            worker = start()
            assert await asyncio.to_thread(worker.wait, 120) == -signal.SIGABRT
        worker = start()
        await drained(settings, worker, 120)
        assert worker.stop() == 0
    finally:
        worker.kill()

    inputs = await read(settings, *settings.topics.readings)
    dead = {(letter := json.loads(r.value))["id"]: letter for r in await read(settings, settings.topics.dead_letters)}
    outputs = {json.loads(r.value)["id"] for r in await read(settings, settings.topics.forecasts)}
    assert [id_ for id_, letter in dead.items() if letter["reason"] == "crashed_worker"] == [culprit]
    assert "POISON" in dead[culprit]["value"]["data"]
    ids = {f"{r.topic}-{r.partition}-{r.offset}": r for r in inputs}
    assert ids.keys() == outputs | dead.keys()
    assert not outputs & dead.keys()
    await states(settings, [record for id_, record in ids.items() if id_ != culprit])
    log = (tmp_path / "worker.log").read_text()
    assert log.count("3 workers in a row ended while they scored the record") == 1
    assert "POISON" not in log


async def test_row_22_a_worker_that_was_killed_once_blames_nothing(settings: Settings, tmp_path: Path) -> None:
    load, log = Load(settings, 50), tmp_path / "worker.log"
    env = environment(settings)
    worker = Worker(log, env)
    try:
        sending = asyncio.create_task(load.send(4000, 1000))
        await begun(settings, worker)
        worker.kill()
        worker = Worker(log, env)
        await sending
        await drained(settings, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    dead = [json.loads(record.value)["reason"] for record in await read(settings, settings.topics.dead_letters)]
    assert "crashed_worker" not in dead
    await states(settings, await read(settings, *settings.topics.readings))
