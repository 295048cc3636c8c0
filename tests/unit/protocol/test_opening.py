"""Where a partition begins, from what the store and Kafka say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream_gru.errors import FencedError, GapError, IdentityError, StateLostError
from stream_gru.protocol.opening import RecordCheck, commit_of
from stream_gru.protocol.partition import Commit, Gap, Opening, Partition, Policy, Start, record_crc
from stream_gru.stores import Assigned, Identity, PartitionId

ID = PartitionId("group", "readings", 3)
IDENTITY = Identity(topic_id="T-1", partitions=4, buckets=16, model="digest", row="1")
WITHOUT_IDS = replace(IDENTITY, topic_id="")
OURS = "stream-gru/1 T-1"

# -- where to begin


@pytest.mark.parametrize(("stored", "commit", "log", "begins"), [
    # first starts
    (None, None, (0, 10), Opening(Start.FIRST, 0, None)),
    (None, None, (4, 10), Opening(Start.FIRST, 4, None)),
    (None, None, (0, 0), Opening(Start.FIRST, 0, None)),
    # resumed; mute below a commit of ours that is ahead of the store
    (5, None, (0, 10), Opening(Start.RESUMED, 5, None)),
    (5, Commit(5, OURS), (0, 10), Opening(Start.RESUMED, 5, 5)),
    (5, Commit(8, OURS), (0, 10), Opening(Start.RESUMED, 5, 8)),
    (5, Commit(2, OURS), (0, 10), Opening(Start.RESUMED, 5, 2)),
    (10, Commit(10, OURS), (0, 10), Opening(Start.RESUMED, 10, 10)),
    (5, Commit(5, OURS), (5, 10), Opening(Start.RESUMED, 5, 5)),
    # an operator's commit, another tool's, another topic's, one past the log's end: mute nothing
    (5, Commit(8, ""), (0, 10), Opening(Start.RESUMED, 5, None)),
    (5, Commit(8, "{}"), (0, 10), Opening(Start.RESUMED, 5, None)),
    (5, Commit(8, "stream-gru/1 T-2"), (0, 10), Opening(Start.RESUMED, 5, None)),
    (5, Commit(8, "stream-gru/2 T-1"), (0, 10), Opening(Start.RESUMED, 5, None)),
    (5, Commit(8, "stream-gru/1"), (0, 10), Opening(Start.RESUMED, 5, None)),
    (5, Commit(11, OURS), (0, 10), Opening(Start.RESUMED, 5, None)),
    # state lost
    (None, Commit(7, OURS), (0, 10), Opening(Start.LOST, 0, 7)),
    (None, Commit(7, OURS), (4, 10), Opening(Start.LOST, 4, 7)),
    (None, Commit(7, ""), (4, 10), Opening(Start.LOST, 4, None)),
    (None, Commit(0, OURS), (0, 10), Opening(Start.LOST, 0, 0)),
    # gaps
    (5, Commit(5, OURS), (8, 10), Opening(Start.RESUMED, 8, 5, Gap(5, 8))),
    (5, None, (10, 10), Opening(Start.RESUMED, 10, None, Gap(5, 10))),
    (None, Commit(5, OURS), (8, 10), Opening(Start.LOST, 8, 5, Gap(5, 8))),
])  # fmt: skip
def test_where_a_partition_begins(
    stored: int | None, commit: Commit | None, log: tuple[int, int], begins: Opening
) -> None:
    partition = Partition(ID)
    opening = partition.open(partition.claim(IDENTITY), Assigned(stored, IDENTITY), commit, *log)
    assert opening == begins
    assert partition.position == begins.position
    assert partition.mute_below == (begins.mute_below or 0)
    assert partition.changed is (begins.position != stored)
    known = begins.mute_below is not None and begins.mute_below >= begins.position
    assert partition.settled is (known and not partition.changed)


def test_a_first_start_may_leave_out_what_is_there() -> None:
    partition = Partition(ID, Policy(start="latest"))
    assert partition.open(partition.claim(IDENTITY), Assigned(None, None), None, 2, 10) == Opening(
        Start.FIRST, 10, None
    )


@pytest.mark.parametrize(("stored", "commit", "opening"), [
    (4, None, Opening(Start.RESUMED, 4, None)),
    (None, Commit(5, OURS), Opening(Start.LOST, 2, 5)),
])  # fmt: skip
def test_but_only_a_first_start(stored: int | None, commit: Commit | None, opening: Opening) -> None:
    partition = Partition(ID, Policy(start="latest"))
    assert partition.open(partition.claim(IDENTITY), Assigned(stored, IDENTITY), commit, 2, 10) == opening


@pytest.mark.parametrize(("name", "value"), [
    ("topic_id", "T-2"), ("partitions", 8), ("buckets", 32), ("model", "other"), ("row", "2"),
])  # fmt: skip
def test_foreign_state_is_refused_and_the_message_says_what_to_do(name: str, value: object) -> None:
    partition = Partition(ID)
    owner = partition.claim(replace(IDENTITY, **{name: value}))  # type: ignore[arg-type]  # a field and its type
    with pytest.raises(IdentityError) as caught:
        partition.open(owner, Assigned(5, IDENTITY), Commit(5, OURS), 0, 10)
    for part in (str(ID), name, repr(value), repr(getattr(IDENTITY, name)), "stream-gru state reset"):
        assert part in str(caught.value)
    assert not partition.active


def test_an_offset_past_the_end_of_the_log_is_refused() -> None:
    partition = Partition(ID)
    with pytest.raises(IdentityError, match=r"read is 11, but the log ends at 10.*state reset"):
        partition.open(partition.claim(IDENTITY), Assigned(11, IDENTITY), None, 0, 10)


def test_lost_state_is_refused_when_so_set() -> None:
    partition = Partition(ID, Policy(on_state_lost="refuse"))
    with pytest.raises(StateLostError, match=r"committed offset 7.*on_state_lost = rebuild"):
        partition.open(partition.claim(IDENTITY), Assigned(None, None), Commit(7, ""), 0, 10)
    partition.open(partition.claim(IDENTITY), Assigned(None, None), None, 0, 10)


def test_a_gap_is_refused_when_so_set() -> None:
    partition = Partition(ID, Policy(on_gap="refuse"))
    with pytest.raises(GapError, match=r"records 5 to 7 are gone.*on_gap = continue"):
        partition.open(partition.claim(IDENTITY), Assigned(5, IDENTITY), None, 8, 10)
    partition.open(partition.claim(IDENTITY), Assigned(8, IDENTITY), None, 8, 10)
    with pytest.raises(GapError):
        partition.out_of_range("T-1", 9, 10)
    assert partition.position == 8


# -- brokers without topic ids


def test_the_last_record_applied_is_asked_for() -> None:
    partition = Partition(ID)
    marks = {"last": "4:000000ff"}
    commit = commit_of(WITHOUT_IDS, 8, "7:00000abc")
    owner = partition.claim(WITHOUT_IDS)
    opening = partition.open(owner, Assigned(5, WITHOUT_IDS, marks=marks), commit, 0, 10)
    assert opening.checks == (RecordCheck(4, 0xFF, of_commit=False), RecordCheck(7, 0xABC, of_commit=True))
    assert not partition.active
    with pytest.raises(FencedError):
        partition.verify("somebody else", {4: 0xFF, 7: 0xABC})
    partition.verify(owner, {4: 0xFF, 7: 0xABC})
    assert partition.active
    assert partition.mute_below == 8


@pytest.mark.parametrize(("found", "mute_below"), [
    ({4: 1, 7: 1}, None), ({4: 1, 7: 0xABC}, None), ({4: 0xFF, 7: 1}, 0), ({4: 0xFF}, 0),
    ({4: None, 7: 0xABC}, 8), ({}, 0),
])  # fmt: skip
def test_another_record_is_refused_or_mutes_nothing(found: dict[int, int | None], mute_below: int | None) -> None:
    """None: refused. A record that is not there (compaction) proves nothing against the state, nor for the commit."""
    partition = Partition(ID)
    owner = partition.claim(WITHOUT_IDS)
    commit = commit_of(WITHOUT_IDS, 8, "7:00000abc")
    partition.open(owner, Assigned(5, WITHOUT_IDS, marks={"last": "4:000000ff"}), commit, 0, 10)
    if mute_below is None:
        with pytest.raises(IdentityError, match=r"record at offset 4.*made again.*state reset"):
            partition.verify(owner, found)
        assert not partition.active
    else:
        partition.verify(owner, found)
        assert partition.mute_below == mute_below


@pytest.mark.parametrize("mark", ["", "nonsense", "4", "4:", ":ff", "4:xyz", "-4:000000ff", "3:000000ff"])
def test_marks_that_say_nothing_are_not_asked_for(mark: str) -> None:
    """The last one speaks of a record that retention has taken."""
    partition = Partition(ID)
    owner = partition.claim(WITHOUT_IDS)
    commit = Commit(5, f"stream-gru/1 - {mark}")
    assert partition.open(owner, Assigned(5, WITHOUT_IDS, marks={"last": mark}), commit, 4, 10).checks == ()
    assert partition.active


def test_with_topic_ids_no_record_is_asked_for() -> None:
    partition = Partition(ID)
    assigned = Assigned(5, IDENTITY, marks={"last": "4:000000ff"})
    assert partition.open(partition.claim(IDENTITY), assigned, Commit(5, OURS), 0, 10).checks == ()


@pytest.mark.parametrize(("one", "other"), [
    ((b"k", b"v"), (b"kv", b"")), ((None, b"v"), (b"v", None)), ((b"k", b"v"), (b"k", b"w")),
    ((b"k", b"v"), (b"l", b"v")),
])  # fmt: skip
def test_the_crc_tells_key_from_value(
    one: tuple[bytes | None, bytes | None], other: tuple[bytes | None, bytes | None]
) -> None:
    assert record_crc(*one) != record_crc(*other)
