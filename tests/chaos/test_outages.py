"""A server is away for a while. The same processes wait, say why, and go on by themselves.

One case: ``pytest tests/chaos/test_outages.py -k 'kafka and killed and 60s and loaded'``.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from stream_gru.settings import Settings
from tests.chaos.outages import LENGTHS, LINES_S, NOTICED_S, RESUMED_S, How, Watch, Which, begin, end
from tests.chaos.servers import Site
from tests.support.check import check
from tests.support.load import Load
from tests.support.progress import drained, progress
from tests.support.workers import Crew, crew, under_way

SERIES = 200
RATE = 200
_LOOK_S = 0.5

NAMES: dict[Which, tuple[str, ...]] = {"kafka": ("kafka",), "redis": ("redis", "store")}  # what /ready may call it


async def outage(site: Site, which: Which, how: How, seconds: float, *, loaded: bool, noticed: bool = False) -> None:
    """All that must hold. `noticed`: it lasts until everyone has noticed."""
    server, direct = (site.broker if which == "kafka" else site.store), site.direct
    load = Load(direct, SERIES)
    with crew(site.settings, site.folder, "a", "b", role="all") as workers:
        await load.send(2 * SERIES)
        await drained(direct, workers.workers["a"])
        await all_ready(workers, 30)
        watch = Watch(workers, NAMES[which], {name: worker.pid for name, worker in workers.workers.items()})
        flowing = asyncio.create_task(load.flow(RATE) if loaded else asyncio.sleep(0))
        try:
            if loaded:
                await under_way(load, direct, RATE)
            await asyncio.to_thread(begin, server, how)
            began = time.monotonic()
            while (after := time.monotonic() - began) < seconds or (noticed and not watch.all_noticed):
                await asyncio.to_thread(watch.look, after)
                if after > NOTICED_S + 1:
                    late = {name: watch.noticed.get(name) for name in workers.workers}
                    assert all(late.values()), f"/ready does not name {which}: {late}, {workers.ready('a')}"
                await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(end, server, how)
            back = time.monotonic()
            await resumed(workers, direct, load, back + RESUMED_S)
            took = time.monotonic() - back
            await asyncio.to_thread(watch.look, time.monotonic() - began)
        finally:
            flowing.cancel()
            await asyncio.gather(flowing, return_exceptions=True)
        await drained(direct, workers.workers["a"], 300)
        most = {name: watch.most_lines(name) for name in workers.workers}
        assert workers.stop() == {"a": 0, "b": 0}
    checked = await check(direct)
    told = ", ".join(f"{name} after {s:.1f} s" for name, s in watch.noticed.items())
    print(f"noticed by {told or 'nobody'}; resumed in {took:.1f} s; most lines a second {most}; {checked}")  # noqa: T201
    assert all(s <= NOTICED_S for s in watch.noticed.values()), watch.noticed
    assert all(rate < LINES_S for rate in most.values()), f"log lines a second: {most}"


async def all_ready(workers: Crew, within_s: float) -> None:
    """Wait for /ready of everyone."""
    deadline = time.monotonic() + within_s
    for name in workers.workers:
        await workers.ready_within(name, deadline - time.monotonic())


async def resumed(workers: Crew, direct: Settings, load: Load, deadline: float) -> None:
    """Every partition is scored and checkpointed again, and everyone is ready, before the deadline.

    A backlog may take longer: what was produced past a black hole for ten minutes is a hundred thousand readings.
    """
    async with progress(direct) as asked:
        held = await asked.commits()
        async with asyncio.timeout(max(1.0, deadline - time.monotonic())):
            await load.send(SERIES)
        ends = await asked.ends()
        further = {tp: min(end, held.get(tp, 0) + 1) for tp, end in ends.items()}
        while not await asked.reached(further):
            assert time.monotonic() < deadline, (
                f"not resumed: {await asked.commits()} of {ends}; "
                + f"{ {name: workers.ready(name) for name in workers.workers} }\n"
                + "\n".join(worker.tail(20) for worker in workers.workers.values())
            )
            await asyncio.sleep(0.2)
    await all_ready(workers, deadline - time.monotonic())


@pytest.mark.chaos
@pytest.mark.parametrize("load", ["idle", "loaded"])
@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("how", ["killed", "frozen", "black-hole"])
@pytest.mark.parametrize("which", ["kafka", "redis"])
async def test_outage(site: Site, which: Which, how: How, seconds: float, load: str) -> None:
    await outage(site, which, how, seconds, loaded=load == "loaded")


async def test_row_15_broker_killed_for_a_moment(site: Site) -> None:
    """The short form that every change is tested with."""
    await outage(site, "kafka", "killed", 8, loaded=True, noticed=True)  # longer than a session
