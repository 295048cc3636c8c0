"""The broker dies again and again, and networks swallow everything on the way to one of two workers."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.chaos import servers
from tests.chaos.servers import Site
from tests.support.check import check
from tests.support.progress import scores, stalls
from tests.support.workers import crew, loaded

CHAOS = pytest.mark.chaos


@CHAOS
async def test_row_15_broker_killed_ten_times(site: Site) -> None:
    took = []
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a", "b"):
            pids = {name: worker.pid for name, worker in workers.workers.items()}
            for _ in range(10):
                await asyncio.sleep(5)  # some checkpoints between two kills
                await asyncio.to_thread(site.broker.kill)
                await asyncio.sleep(30)  # how long it is away
                await asyncio.to_thread(site.broker.start)
                began = time.monotonic()
                for name, worker in workers.workers.items():
                    assert worker.returncode is None, f"{name} ended with {worker.returncode}\n{worker.tail(30)}"
                    await workers.ready_within(name, 30)
                await scores(site.direct, 30)
                took.append(time.monotonic() - began)
            assert pids == {name: worker.pid for name, worker in workers.workers.items()}
    print(f"resumed in {', '.join(f'{s:.1f}' for s in took)} s; {await check(site.direct)}")  # noqa: T201
    assert max(took) < 30


@pytest.mark.parametrize(
    ("seconds", "session_s"), [pytest.param(4, 3, id="4s"), pytest.param(60, 6, id="60s", marks=CHAOS)]
)
async def test_row_16_a_black_hole_between_one_worker_and_kafka(site: Site, seconds: float, session_s: float) -> None:
    """The other one takes over within a session; when the hole is gone there are two of them again."""
    kafka = site.settings.kafka.model_copy(update={"session_timeout_s": session_s, "rebalance_timeout_s": session_s})
    settings = site.settings.model_copy(update={"kafka": kafka})
    with crew(settings, site.folder) as workers:
        workers.start("b", settings=servers.at(settings, site.broker.direct))
        async with loaded(workers, site.direct, "a"), stalls(site.direct) as stalled:
            await workers.share("a", "b", partitions=3)
            pid = workers.workers["a"].pid
            site.broker.proxy.black_hole()
            await asyncio.sleep(seconds)  # how long the hole is there
            await workers.share("b", partitions=6)
            assert (await asyncio.to_thread(workers.ready, "b"))[0]
            site.broker.proxy.heal()
            await workers.ready_within("a", 30)
            await workers.share("a", "b", partitions=3)
            assert workers.workers["a"].pid == pid
    checked = await check(site.direct)
    print(f"longest stall {stalled.worst:.1f} s; {checked}")  # noqa: T201
    assert stalled.worst < 2 * session_s + 5, stalled.where


@pytest.mark.parametrize(
    ("seconds", "request_s"), [pytest.param(8, 4, id="8s"), pytest.param(60, 10, id="60s", marks=CHAOS)]
)
async def test_row_16_a_black_hole_between_one_worker_and_redis(site: Site, seconds: float, request_s: float) -> None:
    """It pauses, and keeps its partitions: who could take them would have the same Redis."""
    state = site.settings.state.model_copy(update={"request_timeout_s": request_s})
    settings = site.settings.model_copy(update={"state": state})
    with crew(settings, site.folder) as workers:
        workers.start("b", settings=servers.at(settings, site.broker.through_proxy, site.store.server.url))
        async with loaded(workers, site.direct, "a"):
            await workers.share("a", "b", partitions=3)
            joined = workers.log("b").count("assigned: ")
            site.store.proxy.black_hole()
            await asyncio.sleep(seconds)  # longer than a session
            await workers.ready_within("a", request_s, wanted=False)
            assert "edis" in f"{(await asyncio.to_thread(workers.ready, 'a'))[1]}"
            assert (await asyncio.to_thread(workers.ready, "b"))[0]
            site.store.proxy.heal()
            await scores(site.direct, 30)
            assert workers.log("b").count("assigned: ") == joined
    print(await check(site.direct))  # noqa: T201
