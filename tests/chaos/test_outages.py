"""A server is away for a while. The same processes wait, say why, and go on by themselves.

One case: ``pytest tests/chaos/test_outages.py -k 'kafka and killed and 60s and loaded'``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Literal

import pytest

from stream_gru.settings import Settings
from tests.chaos.servers import Broker, Site, Store
from tests.support.check import check
from tests.support.load import Load
from tests.support.progress import drained, progress
from tests.support.workers import Crew, crew

SERIES = 200
RATE = 200
NOTICED_S = 15.0
RESUMED_S = 30.0
LINES_S = 5.0
_WINDOW_S = 10.0
_LOOK_S = 0.5

Which = Literal["kafka", "redis"]
How = Literal["killed", "frozen", "black-hole"]
NAMES: dict[Which, tuple[str, ...]] = {"kafka": ("kafka",), "redis": ("redis", "store")}  # what /ready may call it
LENGTHS = [
    pytest.param(10, id="10s"),
    pytest.param(60, id="60s"),
    pytest.param(600, id="10min", marks=pytest.mark.long),
]


def begin(server: Broker | Store, how: How) -> None:
    """The server is away from now on."""
    match how:
        case "killed":
            server.kill()
        case "frozen":
            server.freeze()
        case "black-hole":
            server.proxy.black_hole()


def end(server: Broker | Store, how: How) -> None:
    """It is back when this returns."""
    match how:
        case "killed":
            server.start()
        case "frozen":
            server.thaw()
        case "black-hole":
            server.proxy.heal()


@dataclass
class Watch:
    """What the workers say while a server is away."""

    workers: Crew
    names: tuple[str, ...]
    pids: dict[str, int]
    noticed: dict[str, float] = field(default_factory=dict)  # seconds until /ready named the server
    lines: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # log lines so far

    def look(self, after_s: float) -> None:
        """Fails when a process has ended; notes who has noticed and how much was logged."""
        for name, worker in self.workers.workers.items():
            assert worker.returncode is None, f"{name} ended with {worker.returncode}\n{worker.tail(30)}"
            assert worker.pid == self.pids[name]
            ready, parts = self.workers.ready(name)
            failing = {part: said for part, said in parts.items() if said != "ok"}
            if not ready and any(word in f"{failing}".lower() for word in self.names):
                self.noticed.setdefault(name, after_s)
            self.lines.setdefault(name, []).append((after_s, self.workers.log(name).count("\n")))

    @property
    def all_noticed(self) -> bool:
        """Whether /ready of everyone has named the server."""
        return self.noticed.keys() == self.pids.keys()

    def most_lines(self, name: str) -> float:
        """Log lines a second, in the ten seconds with most of them."""
        seen = self.lines[name]
        spans = [(b - a, m - n) for i, (a, n) in enumerate(seen) for b, m in seen[i:] if b - a <= _WINDOW_S]
        return max(lines for _, lines in spans) / _WINDOW_S


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
                await asyncio.sleep(3)
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
    for name, worker in workers.workers.items():
        while not (said := await asyncio.to_thread(workers.ready, name))[0]:
            assert time.monotonic() < deadline, f"{name} is not ready: {said[1]}\n{worker.tail(30)}"
            await asyncio.sleep(0.2)


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
