"""Workers that die, freeze, fail, join and leave under load."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time

import pytest

from stream_gru.settings import Settings
from tests.chaos import failing
from tests.chaos.failing import KILLS
from tests.chaos.servers import Site
from tests.support.check import check
from tests.support.progress import progress, scores, stalls
from tests.support.waiting import eventually
from tests.support.workers import crew, loaded

CHAOS = pytest.mark.chaos


def lasting(settings: Settings, **state: object) -> Settings:
    """For a worker that dies again and again: a static member comes back without waiting for its own session."""
    return settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"group_instance_id": "test"}),
            "state": settings.state.model_copy(update=state),
        }
    )


@CHAOS
async def test_row_01_thirty_kills(site: Site) -> None:
    """Each is seen to its end before the next."""
    kills = 30
    chance = random.Random(7)
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a", "b"), stalls(site.direct) as stalled:
            for n in range(kills):
                await asyncio.sleep(chance.uniform(0, 3))  # at whatever moment
                victim = "ab"[n % 2]
                assert workers.workers[victim].kill() == -signal.SIGKILL
                workers.start(victim)
                await scores(site.direct, 60)
    checked = await check(site.direct)
    print(f"{kills} kills: longest stall {stalled.worst:.1f} s; {checked}")  # noqa: T201
    # A stall begins up to a checkpoint before the kill.
    assert stalled.worst < site.settings.kafka.session_timeout_s + 5 + 2, stalled.where


@CHAOS
async def test_row_01_kills_faster_than_a_group_can_follow(site: Site) -> None:
    """Kafka gives partitions to a member that was killed meanwhile, and waits for its session: they may stand still for
    as long as it goes on like this. Nothing is lost, and then they go on."""
    chance = random.Random(7)
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a", "b"):
            for n in range(30):
                await asyncio.sleep(chance.uniform(2, 5))  # less than a session
                victim = "ab"[n % 2]
                assert workers.workers[victim].kill() == -signal.SIGKILL
                workers.start(victim)
            took = await scores(site.direct, 60)
    print(f"went on {took:.1f} s after the last kill; {await check(site.direct)}")  # noqa: T201
    assert took < 2 * site.settings.kafka.session_timeout_s + 10  # a rebalance that waits, another one, and a backlog


@pytest.mark.parametrize("kills", [pytest.param(1, id="once"), pytest.param(20, id="twenty", marks=CHAOS)])
async def test_row_02_killed_at_every_fail_point(site: Site, kills: int) -> None:
    chosen = lasting(site.settings, chunk_rows=10)
    with crew(chosen, site.folder) as workers:
        async with loaded(workers, site.direct, "a", rate=300), progress(site.direct) as asked:
            workers.workers["a"].kill()
            for point in KILLS:
                for n in range(kills):
                    when = site.folder / f"{point}-{n}"
                    child = workers.start("a", main=failing.main, FAIL_AT=point, FAIL_WHEN=str(when))
                    ends = await asked.ends()
                    while not await asked.reached(ends):
                        assert child.returncode is None, child.tail(20)
                        await asyncio.sleep(0.1)
                    when.touch()
                    code = await asyncio.to_thread(child.wait, 60)
                    assert code == -signal.SIGKILL, f"at {point}: {child.tail(20)}"
            workers.start("a")
    checked = await check(site.direct)
    print(f"{kills} kills at each of {', '.join(KILLS)}: {checked}")  # noqa: T201
    assert checked.blamed == 0


@CHAOS
async def test_row_03_a_zombie_is_fenced(site: Site) -> None:
    """Stopped for 25 s with a session of 10 s, it wakes up believing that it still owns its partitions."""
    session = site.settings.kafka.model_copy(update={"session_timeout_s": 10})
    chosen = site.settings.model_copy(update={"kafka": session})
    with crew(chosen, site.folder) as workers:
        async with loaded(workers, site.direct, "b", "a"), stalls(site.direct):
            await workers.share("a", "b", partitions=3)
            os.killpg(workers.workers["a"].pid, signal.SIGSTOP)
            await asyncio.sleep(25)  # how long it is stopped
            os.killpg(workers.workers["a"].pid, signal.SIGCONT)
            await eventually(lambda: "fenced" in workers.log("a"), "it is told", 60)
        assert "fenced" in workers.log("a")
    await check(site.direct)


@CHAOS
async def test_row_04_joins_and_leaves(site: Site) -> None:
    """Forty clean rebalances repeat nothing and nothing stands still for long."""
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a"), stalls(site.direct) as stalled:
            for _ in range(20):
                workers.start("b")
                await asyncio.sleep(3)  # the rhythm of the fault: also while the last rebalance goes on
                await workers.listens("b")
                assert await asyncio.to_thread(workers.workers["b"].stop) == 0, workers.workers["b"].tail()
                del workers.workers["b"]
                await asyncio.sleep(3)
    checked = await check(site.direct)
    print(f"longest stall {stalled.worst:.1f} s; {checked}")  # noqa: T201
    assert stalled.worst < 15, stalled.where
    assert checked.duplicates == 0


@pytest.mark.parametrize("turns", [pytest.param(1, id="once"), pytest.param(50, id="fifty", marks=CHAOS)])
async def test_row_06_the_alerters_rebalances_do_not_touch_the_data_plane(site: Site, turns: int) -> None:
    """An alerter that joins and one that leaves are two rebalances of the control plane's group."""
    with crew(site.settings, site.folder) as workers:
        workers.start("a", role="all")
        async with loaded(workers, site.direct, "a"), stalls(site.direct) as stalled:
            for _ in range(turns):
                second = workers.start("alerter", role="alerter")
                while not workers.ready("alerter")[0]:
                    assert second.returncode is None, second.tail()
                    await asyncio.sleep(0.2)
                assert await asyncio.to_thread(second.stop) == 0, second.tail()
            del workers.workers["alerter"]
        assert workers.log("a").count("assigned: ") == 1
    checked = await check(site.direct)
    print(f"{2 * turns} rebalances: longest stall {stalled.worst:.1f} s; {checked}")  # noqa: T201
    assert checked.duplicates == 0
    assert stalled.worst < 5, stalled.where


@pytest.mark.parametrize("lives", [pytest.param(2, id="two"), pytest.param(20, id="twenty", marks=CHAOS)])
async def test_row_07_a_step_that_raises_ends_the_process(site: Site, lives: int) -> None:
    chosen = lasting(site.settings)
    with crew(chosen, site.folder) as workers:
        async with loaded(workers, site.direct, "a"):
            workers.workers["a"].kill()
            for n in range(lives):
                child = workers.start("a", main=failing.main, FAIL_AT="raises", FAIL_SEED=f"{n}")
                code = await asyncio.to_thread(child.wait, 60)
                raised = float(re.findall(r"raising at (\S+)", workers.log("a"))[-1])
                assert code not in (0, None), child.tail()
                assert time.time() - raised < 5
            workers.start("a")
    await check(site.direct)


async def test_row_08_a_cancelled_source_ends_the_process(site: Site) -> None:
    """Unready after a third of what the watchdog gives it; the process ends with a cause."""
    unready_s, exit_s = 1.5, 4.5
    limits = site.settings.worker.model_copy(update={"unready_after_s": unready_s, "exit_after_s": exit_s})
    chosen = lasting(site.settings.model_copy(update={"worker": limits}))
    with crew(chosen, site.folder) as workers:
        async with loaded(workers, site.direct, "a"):
            workers.workers["a"].kill()
            child = workers.start("a", main=failing.main, FAIL_AT="source_cancelled", FAIL_AFTER="1")
            while not (found := re.findall(r"cancelled at (\S+)", workers.log("a"))):
                assert child.returncode is None, child.tail()
                await asyncio.sleep(0.1)
            while child.returncode is None and time.time() < float(found[0]) + exit_s + 3:
                if time.time() > float(found[0]) + unready_s + 1:
                    assert not workers.ready("a")[0]
                await asyncio.sleep(0.2)
            assert child.returncode, f"code {child.returncode}: {child.tail()}"
            workers.start("a")
    await check(site.direct)


@pytest.mark.parametrize("delay_s", [pytest.param(0.0, id="quick"), pytest.param(0.15, id="slow-redis", marks=CHAOS)])
@pytest.mark.parametrize("stops", [pytest.param(2, id="two"), pytest.param(20, id="twenty", marks=CHAOS)])
async def test_row_09_a_sigterm_under_load_repeats_nothing(site: Site, stops: int, delay_s: float) -> None:
    if delay_s:
        site.store.proxy.delay(delay_s)
    chance = random.Random(stops)
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a", "b"):
            for n in range(stops):
                await asyncio.sleep(chance.uniform(1, 3))  # at whatever moment
                name = "ab"[n % 2]
                await workers.listens(name)
                began = time.monotonic()
                assert await asyncio.to_thread(workers.workers[name].stop) == 0, workers.workers[name].tail()
                assert time.monotonic() - began < 10
                workers.start(name)
    checked = await check(site.direct)
    print(f"{stops} stops: {checked}")  # noqa: T201
    assert checked.duplicates == 0
