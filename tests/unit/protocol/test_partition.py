"""The state machine of one partition, call by call. What holds over all orders of calls is in tests/model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_gru.errors import FencedError, IdentityError
from stream_gru.protocol.opening import commit_of
from stream_gru.protocol.partition import Batch, Checkpoint, Commit, Gap, Partition, record_crc
from stream_gru.stores import Assigned, Identity, PartitionId, Write

ID = PartitionId("group", "readings", 3)
IDENTITY = Identity(topic_id="T-1", partitions=4, buckets=16, model="digest", row="1")
WITHOUT_IDS = replace(IDENTITY, topic_id="")
OURS = "stream-gru/1 T-1"


def opened(offset: int | None = 0, identity: Identity = IDENTITY, commit: Commit | None = None) -> Partition:
    """A partition that was begun at `offset` in a log of 1,000 records, with everything settled."""
    partition = Partition(ID)
    commit = commit or commit_of(identity, offset or 0, None)
    partition.open(partition.claim(identity), Assigned(offset, identity), commit, 0, 1000)
    return partition


def taken(partition: Partition, first: int, end: int) -> Batch:
    """Records [first, end) begun and stepped."""
    batch = partition.begin(np.arange(first, end), 7)
    partition.stepped(batch)
    return batch


def checkpointed(partition: Partition) -> Checkpoint:
    checkpoint = partition.cut()
    assert checkpoint is not None
    partition.writes(checkpoint, (), (), 1000, partition.identity.topic_id)
    assert partition.confirmed(checkpoint)
    return checkpoint


# -- claims


def test_each_claim_draws_an_owner_of_128_bits() -> None:
    partition = Partition(ID)
    owners = {partition.claim(IDENTITY) for _ in range(100)}
    assert len(owners) == 100
    assert {len(bytes.fromhex(owner)) for owner in owners} == {16}


def test_a_claim_drops_everything() -> None:
    partition = opened(5)
    late = taken(partition, 5, 9)
    checkpoint = partition.cut()
    assert checkpoint is not None
    owner = partition.claim(IDENTITY)
    assert (partition.active, partition.settled, partition.pending, partition.in_flight) == (False, False, None, 0)
    assert not partition.acknowledged(late)
    assert not partition.may_send(checkpoint)
    assert not partition.confirmed(checkpoint)
    with pytest.raises(FencedError):
        partition.writes(checkpoint, (), (), 1000, "T-1")
    partition.open(owner, Assigned(5, IDENTITY), None, 0, 1000)
    assert (partition.position, partition.acked, partition.stored) == (5, 5, 5)
    assert not partition.acknowledged(late)


def test_the_reply_to_an_earlier_claim_is_refused() -> None:
    partition = Partition(ID)
    earlier, now = partition.claim(IDENTITY), partition.claim(IDENTITY)
    with pytest.raises(FencedError):
        partition.open(earlier, Assigned(0, IDENTITY), None, 0, 10)
    partition.open(now, Assigned(3, IDENTITY), None, 0, 10)
    with pytest.raises(FencedError):
        partition.open(now, Assigned(0, IDENTITY), None, 0, 10)
    assert partition.position == 3


@pytest.mark.parametrize("act", [
    lambda p: p.begin(np.arange(3)), lambda p: p.cut(), lambda p: p.advance(3), lambda p: p.reload(IDENTITY),
    lambda p: p.out_of_range("T-1", 0, 10),
])  # fmt: skip
def test_nothing_happens_to_a_partition_that_is_not_open(act: object) -> None:
    partition = Partition(ID)
    assert callable(act)
    for _ in range(2):
        with pytest.raises(FencedError):
            act(partition)
        partition.claim(IDENTITY)


# -- records


def test_the_position_passes_over_holes_and_the_mask_mutes_what_was_acknowledged() -> None:
    partition = opened(5, commit=Commit(20, OURS))
    offsets = np.array([5, 6, 9, 19, 20, 21])
    assert partition.muted(offsets).tolist() == [True, True, True, True, False, False]
    batch = partition.begin(offsets)
    assert (batch.first, batch.end, partition.position) == (5, 22, 22)
    partition.advance(25)  # the markers of a transaction
    assert partition.position == 25
    partition.advance(24)
    assert partition.position == 25


@pytest.mark.parametrize("offsets", [[], [4], [4, 5], [5, 5], [6, 5], [5, 7, 6]], ids=str)
def test_records_out_of_order_are_a_mistake_of_the_caller(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="rise from 5 on"):
        opened(5).begin(np.array(offsets, np.int64))


def test_acknowledged_is_what_has_no_hole_below_it() -> None:
    partition = opened(0)
    a, b, c = (taken(partition, first, first + 10) for first in (0, 10, 20))
    assert (partition.acked, partition.in_flight) == (0, 3)
    assert partition.acknowledged(b)
    assert partition.acked == 0
    assert partition.acknowledged(a)
    assert (partition.acked, partition.in_flight) == (20, 1)
    assert partition.acknowledged(a)  # told twice
    assert partition.acknowledged(c)
    assert (partition.acked, partition.in_flight) == (30, 0)


def test_holes_are_acknowledged_with_what_is_around_them() -> None:
    partition = opened(0)
    a = partition.begin(np.array([2, 3]))
    partition.advance(7)
    b = partition.begin(np.array([9]))
    assert partition.acked == 0
    partition.acknowledged(a)
    assert partition.acked == 7
    partition.acknowledged(b)
    assert partition.acked == 10


# -- checkpoints


def test_a_checkpoint_waits_for_the_outputs_below_its_cut_and_for_no_others() -> None:
    partition = opened(0)
    a, b = taken(partition, 0, 10), taken(partition, 10, 20)
    checkpoint = partition.cut()
    assert checkpoint is not None
    assert checkpoint.offset == 20
    taken(partition, 20, 30)
    partition.acknowledged(b)
    assert not partition.may_send(checkpoint)
    with pytest.raises(ValueError, match=r"below 20 are not acknowledged \(up to 0\)"):
        partition.writes(checkpoint, (), (), 1000, "T-1")
    partition.acknowledged(a)
    assert partition.may_send(checkpoint)


def test_there_is_one_checkpoint_at_a_time() -> None:
    partition = opened(0)
    taken(partition, 0, 10)
    assert partition.cut() is not None
    assert partition.cut() is None


def test_a_cut_inside_a_batch_is_a_mistake_of_the_caller() -> None:
    partition = opened(0)
    batch = partition.begin(np.arange(3))
    with pytest.raises(ValueError, match="inside a batch"):
        partition.cut()
    partition.stepped(batch)
    assert partition.cut() is not None


@pytest.mark.parametrize(("rows", "chunks"), [(0, [0]), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])])
def test_only_the_last_chunk_moves_the_offset(rows: int, chunks: list[int]) -> None:
    partition = opened(0)
    partition.acknowledged(taken(partition, 0, 10))
    checkpoint = partition.cut()
    assert checkpoint is not None
    series = [b"%d" % i for i in range(rows)]
    writes = partition.writes(checkpoint, series, series, 3, "T-1")
    assert [len(write.rows) for write in writes] == chunks
    assert [one for write in writes for one in write.series] == series
    assert [write.n for write in writes] == list(range(1, len(chunks) + 1))
    assert {write.owner for write in writes} == {partition.owner}
    assert [write.offset for write in writes] == [None] * (len(chunks) - 1) + [10]
    assert [bool(write.marks) for write in writes] == [False] * (len(chunks) - 1) + [True]
    assert partition.writes(checkpoint, [b"other"], [b"other"], 1, "T-1") is writes  # R3: the same bytes for ever


def test_numbers_go_on_from_one_checkpoint_to_the_next() -> None:
    partition = opened(0)
    numbers = []
    for first in range(0, 30, 10):
        partition.acknowledged(taken(partition, first, first + 10))
        checkpoint = partition.cut()
        assert checkpoint is not None
        numbers += [write.n for write in partition.writes(checkpoint, [b"a", b"b"], [b"1", b"2"], 1, "T-1")]
        assert partition.stored == first
        assert partition.confirmed(checkpoint)
        assert not partition.confirmed(checkpoint)
        assert (partition.stored, partition.confirmed_seq, partition.changed) == (first + 10, numbers[-1], False)
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_of_a_topic_that_was_made_again_is_refused() -> None:
    partition = opened(0)
    partition.acknowledged(taken(partition, 0, 10))
    checkpoint = partition.cut()
    assert checkpoint is not None
    with pytest.raises(IdentityError, match=r"T-1.*T-2.*state reset"):
        partition.writes(checkpoint, (), (), 1000, "T-2")
    assert checkpoint.writes == []


def test_a_reload_is_one_write_of_the_same_owner() -> None:
    partition = opened(0)
    new = replace(IDENTITY, model="new", row="2")
    batch = taken(partition, 0, 10)
    with pytest.raises(ValueError, match="drain"):
        partition.reload(new)
    partition.acknowledged(batch)
    checkpointed(partition)
    for other in (replace(new, buckets=32), replace(new, topic_id="T-2")):
        with pytest.raises(ValueError, match="not the buckets or the topic"):
            partition.reload(other)
    reload = partition.reload(new)
    with pytest.raises(ValueError, match="drain"):
        partition.reload(new)
    with pytest.raises(ValueError, match="without rows"):
        partition.writes(reload, [b"a"], [b"1"], 10, "T-1")
    marks = {"last": "9:00000007"}
    assert partition.owner is not None
    assert partition.writes(reload, (), (), 10, "T-1") == [Write(partition.owner, 2, (), (), 10, marks, new)]
    assert partition.identity == IDENTITY
    partition.confirmed(reload)
    assert partition.identity == new


# -- commits


def test_the_beginning_is_settled_once_it_is_stored_and_committed() -> None:
    partition = Partition(ID)
    partition.open(partition.claim(IDENTITY), Assigned(None, None), None, 0, 10)
    assert partition.commit() is None
    assert not partition.settled
    checkpointed(partition)
    assert not partition.settled
    commit = partition.commit()
    assert commit == Commit(0, OURS)
    partition.committed(commit)
    assert partition.settled
    taken(partition, 0, 5)
    assert partition.settled


def test_a_commit_never_goes_back_while_a_lost_state_is_rebuilt() -> None:
    partition = Partition(ID)
    partition.open(partition.claim(IDENTITY), Assigned(None, None), Commit(7, OURS), 0, 100)
    checkpointed(partition)
    assert partition.settled
    for first, due in ((0, None), (3, None), (6, Commit(9, f"{OURS} 8:00000007"))):
        partition.acknowledged(taken(partition, first, first + 3))
        checkpointed(partition)
        assert partition.commit() == due
    assert due is not None
    partition.committed(due)
    assert partition.commit() is None


def test_a_commit_of_somebody_else_is_written_over() -> None:
    partition = opened(5, commit=Commit(90, "moved by hand"))
    assert partition.commit() == Commit(5, OURS)


def test_the_mark_is_of_the_last_record_below_the_cut_and_survives_without_new_ones() -> None:
    partition = opened(0, WITHOUT_IDS)
    with pytest.raises(ValueError, match="crc"):
        partition.begin(np.arange(3))
    crc = record_crc(b"key", b"value")
    batch = partition.begin(np.arange(3), crc)
    partition.stepped(batch)
    partition.acknowledged(batch)
    checkpoint = partition.cut()
    taken(partition, 3, 5)
    assert checkpoint is not None
    assert checkpoint.marks == {"last": f"2:{crc:08x}"}
    partition.writes(checkpoint, (), (), 10, "")
    partition.confirmed(checkpoint)
    assert partition.commit() == Commit(3, f"stream-gru/1 - 2:{crc:08x}")
    again = Partition(ID)
    again.open(again.claim(WITHOUT_IDS), Assigned(3, WITHOUT_IDS, marks=checkpoint.marks), None, 3, 10)
    assert again.commit() == Commit(3, f"stream-gru/1 - 2:{crc:08x}")


# -- what Kafka no longer has


def test_a_gap_met_on_the_way_is_passed_over_once_and_aloud() -> None:
    partition = opened(5)
    batch = taken(partition, 5, 10)
    assert partition.out_of_range("T-1", 20, 1000) == Gap(10, 20)
    assert (partition.position, partition.acked) == (20, 5)
    assert partition.out_of_range("T-1", 20, 1000) is None
    partition.acknowledged(batch)
    assert partition.acked == 20


def test_out_of_range_in_another_topic_is_refused() -> None:
    partition = opened(5)
    with pytest.raises(IdentityError, match="T-2"):
        partition.out_of_range("T-2", 20, 1000)
    with pytest.raises(IdentityError, match="log ends at 4"):
        partition.out_of_range("T-1", 0, 4)
    assert partition.position == 5
