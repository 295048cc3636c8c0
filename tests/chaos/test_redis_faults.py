"""Redis is slow, refuses, dies, goes back in time, is full or replaced, under load."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable

import psutil
import pytest
import redis

from stream_gru.tools.embedded import HOST, RedisServer
from stream_gru.tools.processes import wait_until
from tests.chaos import servers
from tests.chaos.servers import Site
from tests.support.check import check
from tests.support.progress import scores
from tests.support.reading import read
from tests.support.workers import crew, loaded

CHAOS = pytest.mark.chaos
RATE = 600
MB = 1 << 20
Change = Callable[[], None]


@CHAOS
async def test_row_05_nothing_is_scored_before_its_state_is_there(site: Site) -> None:
    """Of two workers one has the slow way to Redis; the other leaves, and its partitions come to the first."""
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a") as load:
            workers.start("b", settings=servers.at(site.settings, site.broker.through_proxy, site.store.server.url))
            await workers.share("a", "b", partitions=3)
            site.store.proxy.delay(site.settings.kafka.session_timeout_s)  # each way, so twice the session for a call
            assert await asyncio.to_thread(workers.workers.pop("b").stop) == 0
            await workers.ready_within("a", 30, wanted=False)
            await asyncio.sleep(3)  # what was scored before the rebalance is out; nothing may follow
            before = len(await read(site.direct, site.direct.topics.forecasts))
            for refused in (False, True):
                if refused:
                    site.store.proxy.refuse()
                began = time.monotonic()
                while time.monotonic() - began < 2 * site.settings.kafka.session_timeout_s:
                    assert not (await asyncio.to_thread(workers.ready, "a"))[0]
                    assert workers.workers["a"].returncode is None
                    await asyncio.sleep(0.5)
                assert len(await read(site.direct, site.direct.topics.forecasts)) == before
            site.store.proxy.heal()
            await workers.ready_within("a", 30)
            assert load.sent > before
    await check(site.direct)


@pytest.mark.parametrize("kills", [pytest.param(1, id="once"), pytest.param(20, id="twenty", marks=CHAOS)])
async def test_row_10_redis_killed(site: Site, kills: int) -> None:
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a", "b"):
            pids = {name: worker.pid for name, worker in workers.workers.items()}
            for _ in range(kills):
                await asyncio.sleep(1.5)  # some checkpoints between two kills
                await asyncio.to_thread(site.store.kill)
                await asyncio.sleep(0.5)  # how long it is away
                await asyncio.to_thread(site.store.start)
                await scores(site.direct, 30)
            assert pids == {name: worker.pid for name, worker in workers.workers.items()}
    checked = await check(site.direct)
    print(f"{kills} kills: {checked}")  # noqa: T201
    assert checked.duplicates == 0, "an acknowledged commit was lost"


@pytest.mark.parametrize(
    ("seconds", "within_s"),  # the short form also runs beside others
    [
        pytest.param(2, 15, id="2s"),
        pytest.param(1, 5 + 1, id="1s", marks=CHAOS),
        pytest.param(60, 5 + 1, id="60s", marks=CHAOS),
    ],
)
async def test_row_11_redis_goes_back_in_time(site: Site, seconds: float, within_s: float) -> None:
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a", "b", rate=RATE):
            copy = await asyncio.to_thread(site.store.remember)
            await asyncio.sleep(seconds)  # so far it goes back
            began = time.monotonic()
            await asyncio.to_thread(site.store.go_back, copy)
            away = time.monotonic() - began
            took = await scores(site.direct, 30)
        fenced = sum(workers.log(name).count("fenced") for name in "ab")
        assert fenced
    checked = await check(site.direct)
    print(f"back by {seconds:g} s: reloaded in {took:.1f} s, {fenced} times fenced; {checked}")  # noqa: T201
    # What was said since the copy was made, and as much again as a checkpoint's interval may hold back.
    assert checked.duplicates < RATE * (seconds + away + 3)
    assert took < within_s


@CHAOS
async def test_row_11_a_replica_is_promoted(site: Site) -> None:
    with RedisServer(site.folder / "replica") as replica, redis.Redis.from_url(replica.url) as client:
        client.replicaof(HOST, str(site.store.server.port))
        wait_until(lambda: client.info("replication").get("master_link_status") == "up", "the replica follows", 30)
        with crew(site.settings, site.folder) as workers:
            elsewhere = servers.at(site.direct, site.direct.kafka.bootstrap_servers, replica.url)
            async with loaded(workers, site.direct, "a", "b"):
                await asyncio.to_thread(site.store.kill)
                client.replicaof("NO", "ONE")
                site.store.proxy.upstream = replica.port
                await scores(site.direct, 30)
        checked = await check(elsewhere)
        print(checked)  # noqa: T201


@pytest.mark.parametrize("seconds", [pytest.param(3, id="3s"), pytest.param(60, id="60s", marks=CHAOS)])
async def test_row_13_redis_is_full(site: Site, seconds: float) -> None:
    def fill() -> None:
        site.store.configure(maxmemory="1")

    def empty() -> None:
        site.store.configure(maxmemory="0")

    await _refused(site, seconds, fill, empty, "OOM")


@CHAOS
@pytest.mark.parametrize("seconds", [pytest.param(60, id="60s"), pytest.param(360, id="6min", marks=pytest.mark.long)])
async def test_row_13_the_disk_of_redis_is_full(site: Site, seconds: float) -> None:
    """By a limit on the size of its files, which its writes meet as they would the end of a disk."""
    assert site.store.server.pid is not None
    process = psutil.Process(site.store.server.pid)

    def fill() -> None:
        process.rlimit(psutil.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def empty() -> None:
        process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    await _refused(site, seconds, fill, empty, "MISCONF")


async def _refused(site: Site, seconds: float, begin: Change, end: Change, word: str) -> None:
    """Redis answers and takes nothing: the workers wait in their group, and nothing is kept for it in memory."""
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a"):
            await workers.ready_within("a", 30)
            worker = psutil.Process(workers.workers["a"].pid)
            joined = workers.log("a").count("assigned: ")
            await asyncio.to_thread(begin)
            try:
                began, memory = time.monotonic(), []
                while time.monotonic() - began < seconds:
                    assert worker.is_running()
                    memory.append(worker.memory_info().rss / MB)
                    await asyncio.sleep(0.5)
                await workers.ready_within("a", 10, wanted=False)
                assert word in f"{(await asyncio.to_thread(workers.ready, 'a'))[1]}"
            finally:
                await asyncio.to_thread(end)
            took = await scores(site.direct, 30)
            assert workers.log("a").count("assigned: ") == joined, "it has left its group"
    checked = await check(site.direct)
    print(f"{memory[0]:.0f} -> {memory[-1]:.0f} MB, at most {max(memory):.0f}; resumed in {took:.1f} s; {checked}")  # noqa: T201
    assert checked.duplicates == 0
    assert max(memory) < memory[0] + 100


@pytest.mark.parametrize(
    ("seconds", "share"), [pytest.param(4, 0.25, id="4s"), pytest.param(60, 0.1, id="60s", marks=CHAOS)]
)
async def test_row_14_replies_of_redis_are_lost(site: Site, seconds: float, share: float) -> None:
    """What was executed and not answered is sent again with the same bytes: applied once, and nobody is fenced."""
    with crew(site.settings, site.folder) as workers:
        async with loaded(workers, site.direct, "a"):
            await workers.ready_within("a", 30)
            site.store.proxy.lose_replies(share, seed=14)
            began = site.store.proxy.accepted
            await asyncio.sleep(seconds)  # so long they are lost
            site.store.proxy.heal()
            lost = site.store.proxy.accepted - began
        assert lost, "no reply was lost"
        assert "fenced" not in workers.log("a")
    checked = await check(site.direct)
    print(f"{lost} connections were made anew; {checked}")  # noqa: T201
    assert checked.duplicates == 0
