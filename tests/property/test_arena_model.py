"""The arena against the plainest model of it: dictionaries."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stream_gru.engine.arena import Arena, ArenaFullError
from stream_gru.engine.row import Layout

LAYOUT = Layout(1, {"hidden": 2})
CAPACITY = 6
PARTITIONS = st.integers(0, 2)
SERIES = st.lists(st.integers(0, 9).map(lambda i: b"s%d" % i), min_size=1, max_size=4)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(LAYOUT, LAYOUT.fresh(), CAPACITY, torch.device("cpu"))
        self.rows: dict[int, dict[bytes, int]] = {}  # the offset in each row
        self.dirty: set[tuple[int, bytes]] = set()
        self.cuts: dict[int, list[dict[bytes, int]]] = {}
        self.offset = 0

    @rule(partition=PARTITIONS)
    def open_or_close(self, partition: int) -> None:
        if partition in self.rows:
            self.arena.close(partition)
            del self.rows[partition], self.cuts[partition]
            self.dirty = {key for key in self.dirty if key[0] != partition}
        else:
            self.arena.open(partition)
            self.rows[partition], self.cuts[partition] = {}, []

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), series=SERIES, step=st.booleans())
    def batch(self, data: st.DataObject, series: list[bytes], step: bool) -> None:
        partition = data.draw(st.sampled_from(sorted(self.rows)))
        known = self.rows[partition]
        slots = self.arena.lookup(partition, series)
        assert [slot >= 0 for slot in slots] == [name in known for name in series]
        self.arena.touch(slots[slots >= 0])
        new = [name for name in dict.fromkeys(series) if name not in known]
        pinned = {(p, name) for p, cuts in self.cuts.items() for cut in cuts for name in cut}
        try:
            evicted = self.arena.make_room(len(new))
        except ArenaFullError:
            assert CAPACITY - sum(map(len, self.rows.values())) < len(new)
            return
        for p, names in evicted.items():
            for name in names:
                assert (p, name) not in self.dirty | pinned
                assert not (p == partition and name in series)
                del self.rows[p][name]
        self.arena.insert(partition, new)
        known.update(dict.fromkeys(new, -1))
        if step:
            slots = self.arena.lookup(partition, list(dict.fromkeys(series)))
            self.offset += 1
            self.arena.heads["offset"][slots] = self.offset
            self.arena.stepped(slots)
            known.update(dict.fromkeys(series, self.offset))
            self.dirty |= {(partition, name) for name in series}

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.rows)), unique=True))
        for partition, cut in self.arena.cuts(chosen).items():
            expected = {name: self.rows[p][name] for p, name in self.dirty if p == partition}
            assert dict(zip(cut.series, LAYOUT.parse(cut.rows)["offset"].tolist(), strict=True)) == expected
            self.cuts[partition].append(expected)
            self.dirty = {key for key in self.dirty if key[0] != partition}

    @precondition(lambda self: any(self.cuts.values()))
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from([p for p, cuts in self.cuts.items() if cuts]))
        self.cuts[partition].pop(0)
        self.arena.confirm(partition)

    @invariant()
    def agrees(self) -> None:
        assert len(self.arena) == sum(map(len, self.rows.values())) <= CAPACITY
        assert self.arena.dirty == len(self.dirty)
        taken: list[int] = []
        for partition, known in self.rows.items():
            slots = self.arena.lookup(partition, list(known))
            assert self.arena.series(partition) == len(known)
            assert self.arena.heads["offset"][slots].tolist() == list(known.values())
            taken += slots.tolist()
        assert len(set(taken)) == len(taken)
        assert np.all(np.array(taken, int) >= 0)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestArena = Machine.TestCase
