"""Traces that break simpler protocols, on a real Redis that is killed, restored, emptied and delayed under the store.

A partition and a store do the work; the log and its outputs are toys: an output is the list of the offsets that its row
was made of, so that it is right exactly if that list is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from stream_gru import stores
from stream_gru.errors import FencedError, StoreUnavailableError
from stream_gru.protocol.partition import Start
from stream_gru.stores import Store
from stream_gru.tools.embedded import RedisServer
from tests.chaos.proxy import HOST, Proxy
from tests.support.toy_worker import FENCED, ID, OK, Kafka, TimeMachine, Worker, patiently


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[TimeMachine]:
    (tmp_path / "copies").mkdir()
    server = RedisServer(tmp_path / "redis")
    if not server.binary:
        pytest.skip("needs a redis-server with an append-only file")
    with server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendfsync", "always")
        yield TimeMachine(server, tmp_path / "copies")


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[str], Store]]:
    opened: list[Store] = []

    def to(url: str) -> Store:
        opened.append(stores.connect(url, buckets=16, timeout_s=0.5))
        return opened[-1]

    yield to
    for store in opened:
        await store.close()


async def test_a_store_that_loses_the_first_chunk_refuses_the_second(
    machine: TimeMachine, connect: Callable[[str], Store]
) -> None:
    """Trace A: Redis loses its last second between two chunks of one checkpoint."""
    worker = Worker(Kafka(), connect(machine.url))
    assert await patiently(worker.take) is Start.FIRST
    await worker.run(4)
    assert await worker.checkpoint() is OK
    before = machine.remember()
    await worker.run(5)
    _, writes = worker.cut()
    assert len(writes) > 1
    assert await worker.store.write(ID, writes[:1]) is OK
    machine.go_back(before)
    assert await patiently(lambda: worker.store.write(ID, writes[1:])) is FENCED
    worker.partition.drop()
    assert await patiently(worker.take) is Start.RESUMED
    assert worker.partition.position == 4
    await worker.finish()


async def test_an_append_only_file_that_ends_anywhere_holds_no_half_of_a_write(
    machine: TimeMachine, connect: Callable[[str], Store]
) -> None:
    """Trace A again: the last second ends within a write."""
    worker = Worker(Kafka(), connect(machine.url))
    await worker.take()
    await worker.run(4)
    assert await worker.checkpoint() is OK
    short = machine.tail(machine.remember()).stat().st_size
    await worker.run(5)
    assert await worker.checkpoint() is OK
    whole = machine.remember()
    size = machine.tail(whole).stat().st_size
    data = machine.tail(whole).read_bytes()
    for end in np.linspace(short + 1, size - 1, 6, dtype=int).tolist():
        machine.tail(whole).write_bytes(data[:end])
        machine.go_back(whole)
        after = Worker(worker.kafka, connect(machine.url))
        assert await after.take() is Start.RESUMED
        assert after.partition.position == 4
        for row in after.rows.values():
            assert row.history == Kafka.right(row.offset)
        await after.finish()


async def executed(client: redis.Redis, before: int) -> None:
    """Wait until Redis has run one more script."""
    async with asyncio.timeout(5):
        while scripts(client) == before:  # noqa: ASYNC110 - it is another process that does it
            await asyncio.sleep(0.005)


def scripts(client: redis.Redis) -> int:
    calls: dict[str, int] = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})
    return calls["calls"]


@pytest.fixture
def proxy(machine: TimeMachine) -> Iterator[Proxy]:
    with Proxy(machine.server.port) as made:
        yield made


async def delayed(proxy: Proxy, call: Callable[[], Awaitable[object]]) -> None:
    """Make a call that is held back until its caller gives up."""
    proxy.hold()
    with pytest.raises(StoreUnavailableError):
        await call()
    proxy.heal()


async def test_a_chunk_that_arrives_after_the_next_checkpoint_writes_nothing(
    machine: TimeMachine, proxy: Proxy, connect: Callable[[str], Store]
) -> None:
    """Trace B."""
    worker = Worker(Kafka(), connect(f"redis://{HOST}:{proxy.port}/0"))
    await worker.take()
    await worker.run(4)
    checkpoint, writes = worker.cut()
    await delayed(proxy, lambda: worker.store.write(ID, writes))
    assert await worker.store.write(ID, writes) is OK
    assert worker.partition.confirmed(checkpoint)
    await worker.run(5)
    assert await worker.checkpoint() is OK
    await late_calls_change_nothing(machine, proxy)
    assert await worker.store.probe(ID, worker.partition.owner or "", worker.partition.confirmed_seq) is OK
    await worker.finish()


async def test_a_chunk_of_an_earlier_owner_writes_nothing(
    machine: TimeMachine, proxy: Proxy, connect: Callable[[str], Store]
) -> None:
    """Trace C: the worker that made the call is gone; its successor began with the same numbers."""
    kafka = Kafka()
    first = Worker(kafka, connect(f"redis://{HOST}:{proxy.port}/0"))
    await first.take()
    await first.run(4)
    _, writes = first.cut()
    await delayed(proxy, lambda: first.store.write(ID, writes))
    second = Worker(kafka, connect(machine.url))
    await second.take()
    await second.run(9)
    assert await second.checkpoint() is OK
    await late_calls_change_nothing(machine, proxy)
    assert await first.store.write(ID, writes) is FENCED
    await second.finish()


async def late_calls_change_nothing(machine: TimeMachine, proxy: Proxy) -> None:
    with redis.Redis.from_url(machine.url) as client:
        held = {key: client.hgetall(key) for key in sorted(client.keys())}
        before = scripts(client)
        assert proxy.held
        proxy.release()
        await executed(client, before)
        assert {key: client.hgetall(key) for key in sorted(client.keys())} == held


async def test_an_assignment_that_arrives_late_fences_and_nothing_more(
    machine: TimeMachine, proxy: Proxy, connect: Callable[[str], Store]
) -> None:
    """Trace C of an assignment: the attempt after it has its own owner."""
    worker = Worker(Kafka(), connect(f"redis://{HOST}:{proxy.port}/0"))
    await worker.take()
    await worker.run(4)
    assert await worker.checkpoint() is OK
    await worker.store.load(ID, worker.partition.owner or "", 0, [b"a"])
    await delayed(proxy, worker.take)
    await worker.take()
    await worker.run(3)
    with redis.Redis.from_url(machine.url) as client:
        before = scripts(client)
        proxy.release()
        await executed(client, before)
    assert await worker.checkpoint() is FENCED
    assert await patiently(worker.take) is Start.RESUMED
    await worker.finish()


@pytest.mark.parametrize("writes_first", ["the one before", "the one after"])
async def test_a_store_that_goes_back_to_before_an_assignment_has_one_owner(
    machine: TimeMachine, connect: Callable[[str], Store], writes_first: str
) -> None:
    """Trace D: both workers live."""
    kafka = Kafka()
    one, two = Worker(kafka, connect(machine.url)), Worker(kafka, connect(machine.url))
    await one.take()
    await one.run(4)
    assert await one.checkpoint() is OK
    before = machine.remember()
    assert await patiently(two.take) is Start.RESUMED
    await two.run(3)
    assert await two.checkpoint() is OK
    machine.go_back(before)
    await one.run(2)  # of series that it holds in memory
    await two.run(2)
    if writes_first == "the one before":
        assert await one.checkpoint() is OK
        assert await two.checkpoint() is FENCED
    else:
        assert await two.checkpoint() is FENCED
        assert await one.checkpoint() is OK
    assert await patiently(two.take) is Start.RESUMED  # the group still names it
    assert await one.checkpoint() is FENCED
    await two.finish()


async def test_an_evicted_row_that_a_store_forgot_is_no_new_series(
    machine: TimeMachine, connect: Callable[[str], Store]
) -> None:
    """Trace E."""
    worker = Worker(Kafka(), connect(machine.url))
    await worker.take()
    before = machine.remember()
    await worker.run(4)
    assert await worker.checkpoint() is OK
    del worker.rows[b"a"]  # clean and confirmed, so it may be evicted
    machine.go_back(before)
    with pytest.raises(FencedError):
        await worker.run(1)
    worker.partition.drop()
    assert await patiently(worker.take) is Start.RESUMED
    assert worker.partition.position == 0
    await worker.finish()


async def test_an_emptied_store_is_noticed_under_load(machine: TimeMachine, connect: Callable[[str], Store]) -> None:
    """Trace F: the next checkpoint is refused, and what comes after is no first start."""
    worker = Worker(Kafka(), connect(machine.url))
    await worker.take()
    await worker.run(4)
    assert await worker.checkpoint() is OK
    await worker.run(5)
    flush(machine)
    assert await worker.checkpoint() is FENCED
    assert await patiently(worker.take) is Start.LOST
    assert worker.partition.position == 0
    assert worker.partition.mute_below == 4
    await worker.finish()


async def test_an_emptied_store_is_noticed_when_idle(machine: TimeMachine, connect: Callable[[str], Store]) -> None:
    """Trace F: by the next probe."""
    worker = Worker(Kafka(), connect(machine.url))
    await worker.take()
    await worker.run(4)
    assert await worker.checkpoint() is OK
    owner, seq = worker.partition.owner or "", worker.partition.confirmed_seq
    assert await worker.store.probe(ID, owner, seq) is OK
    flush(machine)
    assert await worker.store.probe(ID, owner, seq) is FENCED
    assert await patiently(worker.take) is Start.LOST
    await worker.finish()


def flush(machine: TimeMachine) -> None:
    with redis.Redis.from_url(machine.url) as client:
        client.flushall()
