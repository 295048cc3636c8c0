"""What every state store must do. A new one is found by its scheme."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from stream_gru import stores
from stream_gru.errors import FencedError, SettingsError, StoreError
from stream_gru.stores import Assigned, Chosen, Identity, PartitionId, Store, StoreAnswer, Write

IDENTITY = Identity(topic_id="T-1", partitions=4, buckets=16, model="digest", row="1")
OK, FENCED = StoreAnswer.OK, StoreAnswer.FENCED


def owner() -> str:
    return uuid4().hex


async def restored(store: Store, partition: PartitionId, owner: str, confirmed: int = 0) -> dict[bytes, bytes]:
    return {series: row async for some in store.restore(partition, owner, confirmed) for series, row in some}


async def owned(store: Store, partition: PartitionId) -> str:
    mine = owner()
    await store.assign(partition, mine, IDENTITY)
    return mine


def keys(n: int) -> list[bytes]:
    return [b"series-%d" % i for i in range(n)]


async def test_a_first_assignment_finds_nothing(store: Store, partition: PartitionId) -> None:
    assert await store.assign(partition, owner(), IDENTITY) == Assigned(None, None)


async def test_the_identity_is_that_of_the_first_assignment(store: Store, partition: PartitionId) -> None:
    await owned(store, partition)
    other = replace(IDENTITY, model="another")
    assert await store.assign(partition, owner(), other) == Assigned(None, IDENTITY)
    assert await store.assign(partition, owner(), other) == Assigned(None, IDENTITY)


async def test_what_was_written_is_found_again(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    rows = [os.urandom(400) for _ in range(3)]
    marks = {"last": "41:0badcafe", "quote": 'a"b\\'}
    assert await store.write(partition, [Write(mine, 1, keys(3), rows, 42, marks)]) is OK
    assert await store.load(partition, mine, 1, [b"series-2", b"unknown", b"series-0"]) == [rows[2], None, rows[0]]
    assert await restored(store, partition, mine, 1) == dict(zip(keys(3), rows, strict=True))
    assert await store.assign(partition, owner(), IDENTITY) == Assigned(42, IDENTITY, 3, marks)


async def test_a_write_replaces_rows_and_leaves_the_others(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    await store.write(partition, [Write(mine, 1, [b"a", b"b"], [b"1", b"1"])])
    await store.write(partition, [Write(mine, 2, [b"b", b"c"], [b"2", b"2"])])
    assert await restored(store, partition, mine) == {b"a": b"1", b"b": b"2", b"c": b"2"}


async def test_only_a_write_with_an_offset_moves_it(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    await store.write(partition, [Write(mine, 1, offset=7, marks={"last": "6:00000001"})])
    await store.write(partition, [Write(mine, 2, [b"a"], [b"1"])])
    assert await store.assign(partition, owner(), IDENTITY) == Assigned(7, IDENTITY, 1, {"last": "6:00000001"})


async def test_writes_are_pipelined_in_order(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    writes = [Write(mine, n, [b"same", b"%d" % n], [b"%d" % n] * 2) for n in range(1, 40)]
    writes.append(Write(mine, 40, offset=99))
    assert await store.write(partition, writes) is OK
    assert await store.load(partition, mine, 40, [b"same", b"1", b"39"]) == [b"39", b"1", b"39"]


async def test_nothing_to_write_is_no_call(store: Store, partition: PartitionId) -> None:
    assert await store.write(partition, []) is OK


async def test_a_repeated_write_is_ok_and_changes_nothing(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    first, second = Write(mine, 1, [b"a"], [b"old"], 1), Write(mine, 2, [b"a"], [b"new"], 2)
    assert await store.write(partition, [first, second]) is OK
    assert await store.write(partition, [first]) is OK
    assert await store.write(partition, [first, second]) is OK
    assert await store.load(partition, mine, 2, [b"a"]) == [b"new"]
    assert (await store.assign(partition, owner(), IDENTITY)).offset == 2


async def test_a_number_out_of_turn_is_fenced(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    assert await store.write(partition, [Write(mine, 2, [b"a"], [b"1"], 5)]) is FENCED
    assert await store.load(partition, mine, 0, [b"a"]) == [None]
    assert await store.write(partition, [Write(mine, 1), Write(mine, 3, [b"a"], [b"1"], 5)]) is FENCED
    assert await store.load(partition, mine, 1, [b"a"]) == [None]
    assert (await store.assign(partition, owner(), IDENTITY)).offset is None


async def test_an_earlier_owner_can_do_nothing(store: Store, partition: PartitionId) -> None:
    before = await owned(store, partition)
    await store.write(partition, [Write(before, 1, [b"a"], [b"1"], 1)])
    now = await owned(store, partition)
    assert await store.write(partition, [Write(before, 2, [b"a"], [b"2"], 2)]) is FENCED
    assert await store.write(partition, [Write(before, 1, [b"a"], [b"2"], 2)]) is FENCED
    assert await store.probe(partition, before, 1) is FENCED
    with pytest.raises(FencedError):
        await store.load(partition, before, 1, [b"a"])
    with pytest.raises(FencedError):
        await restored(store, partition, before, 1)
    assert await store.load(partition, now, 0, [b"a"]) == [b"1"]
    assert await store.write(partition, [Write(now, 1, [b"a"], [b"3"], 2)]) is OK


async def test_a_new_owner_begins_to_count_anew(store: Store, partition: PartitionId) -> None:
    before = await owned(store, partition)
    await store.write(partition, [Write(before, n) for n in range(1, 6)])
    now = await owned(store, partition)
    assert await store.write(partition, [Write(now, 6)]) is FENCED
    assert await store.write(partition, [Write(now, 1)]) is OK


async def test_a_store_that_forgot_a_confirmed_write_is_fenced(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    await store.write(partition, [Write(mine, 1, [b"a"], [b"1"])])
    assert await store.probe(partition, mine, 1) is OK
    assert await store.probe(partition, mine, 0) is OK
    assert await store.probe(partition, mine, 2) is FENCED
    with pytest.raises(FencedError):
        await store.load(partition, mine, 2, [b"new"])
    with pytest.raises(FencedError):
        await restored(store, partition, mine, 2)


async def test_an_emptied_store_fences_everyone(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    await store.write(partition, [Write(mine, 1, keys(100), keys(100), 1)])
    assert await store.delete(partition) == 100
    assert await store.probe(partition, mine, 0) is FENCED
    assert await store.write(partition, [Write(mine, 2, [b"a"], [b"1"], 2)]) is FENCED
    assert await store.write(partition, [Write(mine, 1, [b"a"], [b"1"], 2)]) is FENCED
    with pytest.raises(FencedError):
        await store.load(partition, mine, 0, [b"a"])
    with pytest.raises(FencedError):
        await restored(store, partition, mine)
    assert await store.assign(partition, owner(), IDENTITY) == Assigned(None, None)
    assert await store.delete(partition) == 0


async def test_a_reload_drops_every_row_and_takes_the_identity(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    await store.write(partition, [Write(mine, 1, keys(200), keys(200), 1, {"last": "0:00000000"})])
    new = replace(IDENTITY, model="another", row="2")
    reload = Write(mine, 2, offset=5, marks={"last": "4:00000000"}, identity=new)
    assert await store.write(partition, [reload]) is OK
    assert await restored(store, partition, mine, 2) == {}
    await store.write(partition, [Write(mine, 3, [b"a"], [b"1"])])
    assert await store.write(partition, [reload]) is OK  # repeated: nothing is dropped again
    assert await store.assign(partition, owner(), new) == Assigned(5, new, 1, {"last": "4:00000000"})


async def test_word_of_what_an_owner_reads_stays_until_it_hands_over(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    word = '{"trying": [3, 4], "odd": "\\r\\n"}'
    assert await store.mark(partition, mine, word) is OK
    assert (await store.assign(partition, owner(), IDENTITY)).reading == word
    now = owner()
    assert (await store.assign(partition, now, IDENTITY)).reading == word, "an owner that did nothing changes nothing"
    assert await store.mark(partition, mine, "") is FENCED
    assert await store.mark(partition, now, "other") is OK
    assert await store.mark(partition, now, "") is OK
    assert (await store.assign(partition, owner(), IDENTITY)).reading == ""
    assert await store.mark(replace(partition, partition=99), now, "x") is FENCED


async def test_word_that_nobody_waits_for_arrives_and_is_fenced_too(store: Store, partition: PartitionId) -> None:
    neighbour = replace(partition, partition=7)
    mine, before = await owned(store, partition), await owned(store, neighbour)
    now = await owned(store, neighbour)
    async with asyncio.timeout(10):
        while (await store.assign(partition, mine, IDENTITY)).reading != "7":
            for n in range(8):
                await store.mark_soon([(partition, mine, str(n)), (neighbour, before, "of an earlier owner")])
            await asyncio.sleep(0.01)
    assert (await store.assign(neighbour, now, IDENTITY)).reading == ""


async def test_many_are_probed_at_once(store: Store, partition: PartitionId) -> None:
    known = []
    for n in range(60):
        at = replace(partition, partition=n)
        mine = await owned(store, at)
        await store.write(at, [Write(mine, 1)])
        known.append((at, mine, 1))
    assert await store.probes([]) == []
    assert await store.probes(known) == [OK] * 60
    lost = {0, 1, 17, 18, 42, 59}
    for n in lost:
        await owned(store, known[n][0])
    assert await store.probes(known) == [FENCED if n in lost else OK for n in range(60)]


async def test_the_model_of_a_group(store: Store, partition: PartitionId) -> None:
    group = partition.group
    one, two = (
        Chosen(f"digest-{n}", f"name {n}@digest", {}, {"bundle.json": b"{%d}" % n, "weights": os.urandom(9000)})
        for n in (1, 2)
    )
    assert await store.chosen(group, files=True) is None
    await store.choose(group, one, {"digest-0": "zero é"})
    await store.choose(group, one, {"digest-0": "zero é"})
    assert await store.chosen(group, files=True) == replace(one, replaced={"digest-0": "zero é"})
    await store.choose(group, two, {"digest-1": one.name})
    found = await store.chosen(group, files=False)
    assert found == replace(two, replaced={"digest-0": "zero é", "digest-1": one.name}, files={})
    await store.choose(group, one, {"digest-2": two.name})
    found = await store.chosen(group, files=True)
    assert found == replace(one, replaced={"digest-0": "zero é", "digest-2": two.name}), "it is in use again"
    assert await store.chosen(f"{group}:t:0", files=True) is None
    mine = await owned(store, partition)
    assert await store.delete(partition) == 0
    assert await store.chosen(group, files=False) is not None
    await store.forget(group)
    assert await store.chosen(group, files=True) is None
    assert await store.probe(partition, mine, 0) is FENCED


async def test_the_offset_never_goes_back(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    await store.write(partition, [Write(mine, 1, [b"a"], [b"1"], 10)])
    with pytest.raises(StoreError, match="back from 10 to 9"):
        await store.write(partition, [Write(mine, 2, [b"a"], [b"2"], 9)])
    assert await store.load(partition, mine, 1, [b"a"]) == [b"1"]
    assert await store.write(partition, [Write(mine, 2, [b"a"], [b"2"], 10)]) is OK


@pytest.mark.parametrize(
    "series",
    [b"a\r\n$3\r\nb", b"\x00", "température/été".encode(), b"{tag}", b"x" * 256, b" ", b"*3\r\n", b"0", b"-1", b"%d"],
    ids=repr,
)
async def test_any_bytes_are_kept(store: Store, partition: PartitionId, series: bytes) -> None:
    mine = await owned(store, partition)
    row = b"\r\n+OK\r\n" + series + bytes(range(256))
    await store.write(partition, [Write(mine, 1, [series, b"other"], [row, b""])])
    assert await store.load(partition, mine, 1, [series, b"other"]) == [row, b""]
    assert await restored(store, partition, mine, 1) == {series: row, b"other": b""}


async def test_many_rows(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    series = keys(20_000)
    rows = {one: b"%064d" % i for i, one in enumerate(series)}
    chunks: list[Sequence[bytes]] = [series[start : start + 1900] for start in range(0, len(series), 1900)]
    writes = [Write(mine, n, chunk, [rows[one] for one in chunk]) for n, chunk in enumerate(chunks, 1)]
    assert await store.write(partition, writes) is OK
    assert await restored(store, partition, mine, len(writes)) == rows
    asked = [*series[::-3], b"unknown", *series[:5]]
    assert await store.load(partition, mine, len(writes), asked) == [rows.get(one) for one in asked]
    assert (await store.assign(partition, owner(), IDENTITY)).rows == len(series)


async def test_a_restore_that_loses_the_partition_midway_says_so(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    writes = [Write(mine, n, keys(1000 * n)[-1000:], keys(1000)) for n in range(1, 21)]
    assert await store.write(partition, writes) is OK
    restore = aiter(store.restore(partition, mine, len(writes)))
    assert await anext(restore)
    await owned(store, partition)
    with pytest.raises(FencedError):
        [some async for some in restore]


async def test_partitions_are_apart(store: Store, partition: PartitionId) -> None:
    neighbours = [
        replace(partition, partition=4),
        replace(partition, topic="readings:3"),
        replace(partition, group=f"{partition.group}:readings"),
    ]
    mine = await owned(store, partition)
    others = [await owned(store, neighbour) for neighbour in neighbours]
    await store.write(partition, [Write(mine, 1, [b"a"], [b"1"], 1)])
    for neighbour, other in zip(neighbours, others, strict=True):
        assert await store.load(neighbour, other, 0, [b"a"]) == [None]
        assert await store.probe(neighbour, mine, 0) is FENCED
    assert await store.delete(neighbours[0]) == 0
    assert await store.load(partition, mine, 1, [b"a"]) == [b"1"]


async def test_calls_may_run_at_once(store: Store, partition: PartitionId) -> None:
    mine = await owned(store, partition)
    await store.write(partition, [Write(mine, 1, keys(50), keys(50))])
    others = [replace(partition, partition=n) for n in range(10, 30)]
    owners = await asyncio.gather(*(owned(store, other) for other in others))
    outcomes = await asyncio.gather(
        *(
            store.write(other, [Write(owner, 1, keys(50), [b"%d" % other.partition] * 50)])
            for other, owner in zip(others, owners, strict=True)
        )
    )
    assert outcomes == [OK] * len(others)
    loaded = await asyncio.gather(
        *(store.load(other, owner, 1, [b"series-7"]) for other, owner in zip(others, owners, strict=True)),
        *(store.load(partition, mine, 1, [one]) for one in keys(50)),
    )
    assert loaded == [[b"%d" % other.partition] for other in others] + [[one] for one in keys(50)]


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="no store for mongodb://; there are memory, redis, rediss"):
        stores.connect("mongodb://localhost", buckets=16, timeout_s=1)


async def test_memory_is_shared_by_name_and_private_without_one(partition: PartitionId) -> None:
    name = uuid4().hex
    one, same, other = (stores.connect(f"memory://{n}", buckets=16, timeout_s=1) for n in (name, name, ""))
    mine = await owned(one, partition)
    assert await same.probe(partition, mine, 0) is OK
    assert await other.probe(partition, mine, 0) is FENCED
    assert await stores.connect("memory://", buckets=16, timeout_s=1).probe(partition, mine, 0) is FENCED
