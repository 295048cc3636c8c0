from __future__ import annotations

import numpy as np
import pytest
import torch

from stream_gru.engine import arena as arenas
from stream_gru.engine.arena import Arena, ArenaFullError
from stream_gru.engine.row import Layout
from stream_gru.errors import StoreError

LAYOUT = Layout(1, {"hidden": 4})


def make(capacity: int = 8, partitions: tuple[int, ...] = (0,)) -> Arena:
    arena = Arena(LAYOUT, LAYOUT.fresh(hidden=0.5), capacity, torch.device("cpu"))
    for partition in partitions:
        arena.open(partition)
    return arena


def row(offset: int) -> bytes:
    made = LAYOUT.fresh(hidden=offset)
    made["offset"] = offset
    return made.tobytes()


def batch(arena: Arena, slots: np.ndarray, *, changed: bool = True) -> None:
    arena.touch(slots)
    arena.stepped(slots if changed else slots[:0])


def idle(arena: Arena) -> None:
    """Two batches of others pass."""
    for _ in range(2):
        arena.stepped(np.empty(0, np.int64))


def test_what_goes_in_comes_out() -> None:
    arena = make(partitions=(0, 3))
    slots = arena.insert(3, [b"a", b"b"], [row(7), None])
    assert arena.lookup(3, [b"b", b"x", b"a"]).tolist() == [slots[1], -1, slots[0]]
    assert arena.lookup(0, [b"a"]).tolist() == [-1]
    rows = LAYOUT.parse(arena.read(slots))
    assert rows["offset"].tolist() == [7, -1]
    assert rows["body"]["hidden"][:, 0, 0].tolist() == [7, 0.5]
    assert (len(arena), arena.series(3), arena.series(0), arena.dirty) == (2, 2, 0, 0)


def test_a_cut_is_a_copy_of_what_changed_since_the_last_one() -> None:
    arena = make(partitions=(0, 1))
    slots = arena.insert(0, [b"a", b"b", b"c"], [row(1), row(2), row(3)])
    other = arena.insert(1, [b"a"], [row(9)])
    batch(arena, np.r_[slots[1:], other])
    cuts = arena.cuts([0, 1])
    assert sorted(cuts[0].series) == [b"b", b"c"]
    assert cuts[1].series == [b"a"]
    arena.write(slots, np.frombuffer(row(5) * 3, np.uint8).reshape(3, -1))
    assert dict(zip(*next(cuts[0].chunks(10)), strict=True)) == {b"b": row(2), b"c": row(3)}
    assert [len(series) for series, _ in cuts[0].chunks(1)] == [1, 1]
    assert len(arena.cut(0)) == 0
    assert arena.dirty == 0
    arena.mark_dirty(slots[:1])
    assert arena.cut(0).series == [b"a"]


def test_only_clean_rows_of_no_unconfirmed_cut_are_evicted_least_recently_seen_first() -> None:
    arena = make(4)
    slots = arena.insert(0, [b"a", b"b", b"c", b"d"])
    idle(arena)
    batch(arena, slots[2:3], changed=False)
    batch(arena, slots[:2])
    idle(arena)
    assert arena.make_room(1) == {0: [b"d"]}  # a and b changed, c was seen later
    arena.insert(0, [b"e"])
    idle(arena)
    assert arena.make_room(1) == {0: [b"c"]}
    arena.insert(0, [b"f"])
    batch(arena, arena.lookup(0, [b"e", b"f"]))
    idle(arena)
    with pytest.raises(ArenaFullError, match=r"4 of 4 rows and only 0 of the 1 .* may be evicted"):
        arena.make_room(1)
    assert len(arena.cut(0)) == 4
    with pytest.raises(ArenaFullError, match=r"[Cc]heckpoint"):
        arena.make_room(1)  # clean, but the store has not confirmed it
    arena.confirm(0)
    assert arena.make_room(2) == {0: [b"a", b"b"]}
    assert arena.make_room(2) == {}


def test_a_row_in_two_unconfirmed_cuts_waits_for_both() -> None:
    arena = make(1)
    slots = arena.insert(0, [b"a"])
    for _ in range(2):
        batch(arena, slots)
        arena.cut(0)
    idle(arena)
    arena.confirm(0)
    with pytest.raises(ArenaFullError):
        arena.make_room(1)
    arena.confirm(0)
    assert arena.make_room(1) == {0: [b"a"]}


def test_the_batch_in_hand_keeps_its_rows() -> None:
    arena = make(2)
    slots = arena.insert(0, [b"a", b"b"])
    idle(arena)
    arena.touch(slots[:1])
    assert arena.make_room(1) == {0: [b"b"]}
    with pytest.raises(ArenaFullError):
        arena.make_room(2)


def test_eviction_takes_a_share_at_once_and_the_slots_are_used_again() -> None:
    arena = make(640)
    slots = arena.insert(0, [b"%d" % i for i in range(640)])
    idle(arena)
    arena.touch(slots[320:])
    idle(arena)
    evicted = arena.make_room(1)[0]
    assert len(evicted) == 10
    assert all(int(name) < 320 for name in evicted)
    assert arena.lookup(0, evicted).tolist() == [-1] * 10
    again = arena.insert(0, [b"new-%d" % i for i in range(10)])
    assert set(again.tolist()) <= set(slots.tolist())
    assert len(arena) == 640
    assert len(set(arena.lookup(0, list(arena._slots[0])).tolist())) == 640


def test_closing_a_partition_drops_its_rows_and_marks() -> None:
    arena = make(4, (0, 1))
    batch(arena, arena.insert(0, [b"a", b"b"]))
    kept = arena.insert(1, [b"a"])
    arena.cut(0)
    arena.close(0)
    assert (len(arena), arena.partitions) == (1, [1])
    arena.open(0)
    fresh = arena.insert(0, [b"a", b"b", b"c"])
    assert not set(fresh.tolist()) & set(kept.tolist())
    assert LAYOUT.parse(arena.read(fresh))["offset"].tolist() == [-1] * 3
    assert len(arena.cut(0)) == 0


def test_mistakes_are_said() -> None:
    arena = make(2)
    with pytest.raises(StoreError, match=f"does not have the {LAYOUT.row_bytes} bytes"):
        arena.insert(0, [b"a"], [b"short"])
    assert len(arena) == 0
    with pytest.raises(ArenaFullError, match="no room for 3 rows"):
        arena.insert(0, [b"a", b"b", b"c"])
    with pytest.raises(ValueError, match="open already"):
        arena.open(0)
    arena.insert(0, [b"a"])
    with pytest.raises(ValueError, match="twice"):
        arena.insert(0, [b"a"])


def test_admit_takes_in_what_is_new_once() -> None:
    arena = make(3)
    slots = arena.admit(0, [b"a", b"b", b"a"])
    assert slots[0] == slots[2] != slots[1]
    assert arena.admit(0, [b"b", b"c"]).tolist()[0] == slots[1]
    assert len(arena) == 3


def test_the_clock_of_batches_may_run_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas, "_LAST_TICK", 8)
    arena = make(2)
    slots = arena.insert(0, [b"a", b"b"])
    for _ in range(20):
        batch(arena, slots[1:], changed=False)
    arena.touch(slots[:1])
    idle(arena)
    idle(arena)
    assert arena.make_room(1) == {0: [b"b"]}
