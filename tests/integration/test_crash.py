"""Workers that die, freeze and come back under load; what must hold is CHECK."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from stream_gru.settings import Settings
from stream_gru.tools.embedded import ApacheKafka, KafkaServer
from tests.support.check import check
from tests.support.load import Load
from tests.support.progress import drained, scores, stored_offsets
from tests.support.workers import crew, under_way

PARTITIONS = 6
SERIES = 2000


@pytest.fixture
def loaded(make_settings: Callable[[int], Settings]) -> Settings:
    """With as much in hand at a crash as by default."""
    made = make_settings(PARTITIONS)
    return made.model_copy(update={"state": made.state.model_copy(update={"checkpoint_interval_s": 1.0})})


def soon_missed(settings: Settings) -> Settings:
    """For workers that die or freeze: their group does not wait long for them."""
    kafka = settings.kafka.model_copy(update={"session_timeout_s": 3, "rebalance_timeout_s": 2})
    return settings.model_copy(update={"kafka": kafka})


@pytest.fixture
def mortal(kafka: KafkaServer, loaded: Settings) -> Settings:
    """For workers that die: on the embedded broker, whose groups never bury a dead leader, they are static members."""
    if isinstance(kafka, ApacheKafka):
        return soon_missed(loaded)
    return loaded.model_copy(update={"kafka": loaded.kafka.model_copy(update={"group_instance_id": "test"})})


@dataclass(frozen=True)
class Storm:
    kills: int
    every_s: float
    rate: int


async def _survives(settings: Settings, folder: Path, storm: Storm) -> None:
    load, chance = Load(settings, SERIES), random.Random(7)
    with crew(settings, folder, "a", "b") as workers:
        await load.send(2 * SERIES)
        await drained(settings, workers.workers["a"])  # all have started
        async with load.flowing(storm.rate):
            for n in range(storm.kills):
                await asyncio.sleep(storm.every_s * chance.uniform(0.5, 1.0))  # at whatever moment
                victim = "ab"[n % 2]
                assert workers.workers[victim].kill() == -signal.SIGKILL
                workers.start(victim)
        await drained(settings, workers.workers["a"], 90)
        assert set(workers.stop().values()) == {0}
    checked = await check(settings)
    assert checked.inputs == load.sent


async def test_row_01_three_kills_under_load(mortal: Settings, tmp_path: Path) -> None:
    await _survives(mortal, tmp_path, Storm(kills=3, every_s=3, rate=2000))


async def test_row_03_a_worker_frozen_past_its_session_is_fenced(
    kafka: KafkaServer, loaded: Settings, tmp_path: Path
) -> None:
    """A worker is stopped past its session and wakes up believing that it still owns its partitions."""
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("the embedded broker's groups never give a frozen member's partitions away; set KAFKA_HOME")
    load = Load(loaded, SERIES)
    with crew(soon_missed(loaded), tmp_path, "a", "b") as workers:
        await load.send(2 * SERIES)
        await workers.share("a", "b", partitions=PARTITIONS // 2)
        async with load.flowing(1500):
            await under_way(load, loaded, 1000)
            os.killpg(workers.workers["a"].pid, signal.SIGSTOP)
            await workers.share("b", partitions=PARTITIONS)
            await scores(loaded, 60)  # so what "a" holds is old
            before = await stored_offsets(loaded)
            os.killpg(workers.workers["a"].pid, signal.SIGCONT)
            await workers.share("a", "b", partitions=PARTITIONS // 2)
        await drained(loaded, workers.workers["b"], 90)
        after = await stored_offsets(loaded)
        assert all(after[tp] >= offset for tp, offset in before.items())
        assert workers.stop() == {"a": 0, "b": 0}
        assert "fenced" in workers.log("a")
    assert (await check(loaded)).inputs == load.sent


async def test_row_04_a_worker_joins_and_leaves(loaded: Settings, tmp_path: Path) -> None:
    """Clean rebalances repeat nothing and lose nothing."""
    load = Load(loaded, SERIES)
    with crew(loaded, tmp_path, "a") as workers:
        async with load.flowing(1500):
            await workers.share("a", partitions=PARTITIONS)
            await scores(loaded, 60)
            workers.start("b")
            await workers.share("a", "b", partitions=PARTITIONS // 2)
            await scores(loaded, 60)
            assert await asyncio.to_thread(workers.workers.pop("b").stop) == 0
            await workers.share("a", partitions=PARTITIONS)
            await scores(loaded, 60)
        await drained(loaded, workers.workers["a"])
        assert workers.stop() == {"a": 0}
    assert (await check(loaded)).duplicates == 0
