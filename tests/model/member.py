"""A worker of the toy world: the real partition state machine, an arena of toy rows, and what it waits for.

A row is the list of the offsets that it was stepped with, so that an output is right exactly if that list is complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stream_gru.errors import FencedError
from stream_gru.protocol.partition import Batch, Checkpoint, Partition, Start
from stream_gru.stores import Assigned, Write
from tests.model.store import Assignment, Row, ViolationError, Word, held, knows, load

if TYPE_CHECKING:
    from tests.model.world import World

T = TypeVar("T")

CHUNK_ROWS = 1
IN_FLIGHT = 2


def shallow(one: T) -> T:
    """`copy.copy`, without the detour by which it makes an object."""
    made = object.__new__(type(one))
    made.__dict__.update(one.__dict__)
    return made


@dataclass
class Owners:
    """Owner ids that never repeat; or, where rule R1 is broken, that do."""

    name: str
    repeat: bool = False
    count: int = 0

    def __call__(self) -> str:
        self.count += not self.repeat
        return f"{self.name}{self.count}"


@dataclass
class Member:
    """Each method below that takes the world is something that may happen to this worker."""

    partition: Partition
    rows: dict[bytes, Row] = field(default_factory=dict)
    dirty: set[bytes] = field(default_factory=set)
    copies: dict[bytes, Row] = field(default_factory=dict)  # of the pending checkpoint
    sent: int = 0  # writes of it that the store has answered
    unacked: list[tuple[Batch, tuple[int, ...]]] = field(default_factory=list)
    stale: list[tuple[Batch, tuple[int, ...]]] = field(default_factory=list)  # of earlier owners
    reply: tuple[str, Assigned] | None = None  # the late answer to an earlier claim
    peeked: Assigned | None = None  # what was read before the fence, where rule R10 is broken
    model: str = "m"
    refused: bool = False
    reads: bool = False  # it took records in, and left word of that (rule R21)

    def copy(self) -> Member:
        """Another one that shares with this one only what never changes; by hand, for the search makes many."""
        made, was = shallow(self), self.partition
        partition = made.partition = shallow(was)
        partition._new_owner = shallow(was._new_owner)
        batches = {batch: replace(batch) for batch in (*was._in_flight, *(b for b, _ in self.unacked + self.stale))}
        partition._in_flight = deque(batches[batch] for batch in was._in_flight)
        if was.pending:
            partition.pending = replace(was.pending, writes=list(was.pending.writes))
        made.rows, made.dirty, made.copies = dict(self.rows), set(self.dirty), dict(self.copies)
        made.unacked = [(batches[batch], outputs) for batch, outputs in self.unacked]
        made.stale = [(batches[batch], outputs) for batch, outputs in self.stale]
        return made

    def actions(self, world: World, *, named: bool) -> Iterator[tuple[Any, ...]]:
        """What may happen next; `named`: the group names this worker."""
        partition, budget, broken = self.partition, world.budget, world.broken
        if self.refused:
            return
        if not partition.active:
            if named:
                yield ("assign",)
                yield from ((how,) for how in ("assign_lost", "assign_late", "reply_late") if budget.get(how))
            if broken == "R10" and not self.peeked and world.kept:
                yield ("peek",)
            return
        if budget.get("crash"):
            yield ("crash",)
        if self.reply:
            yield ("late_reply",)
        if partition.settled and partition.position < world.end and partition.in_flight < IN_FLIGHT:
            yield ("step",)
        yield from (("ack", i) for i in range(len(self.unacked)))
        yield from (("stale_ack", i) for i in range(len(self.stale)))
        pending = partition.pending
        if (pending is None and (self.dirty or partition.changed)) or (pending and broken == "R3"):
            yield ("cut",)
        if pending is not None and partition.may_send(pending):
            yield ("deliver",)
            if budget.get("lost"):
                yield ("lost",)
            if budget.get("delay"):
                yield from (("delay", i) for i in range(self.sent, len(pending.writes)))
        if pending is None and not self.dirty and not partition.changed:
            yield ("tick",)
        if (budget.get("slow_commit") or not partition.settled) and partition.commit():
            yield ("commit",)
        if budget.get("evict"):
            yield from (("evict", s) for s in sorted(self.rows) if self._may_evict(s, broken))
        drained = pending is None and partition.acked == partition.position and not self.dirty
        if self.reads and drained and budget.get("leave"):
            yield from ((how,) for how in ("leave", "leave_late"))
        if budget.get("reload") and partition.settled and (drained or broken == "R18"):
            yield ("reload",)

    def _may_evict(self, series: bytes, broken: str) -> bool:
        clean = series not in self.dirty or broken == "R7"
        return clean and (series not in self.copies or broken == "R8")

    # -- assignment

    def _claim(self, world: World) -> Assignment:
        owners = self.partition._new_owner
        if world.broken == "R1 epoch" and isinstance(owners, Owners):
            owners.count = int(world.kept.owner.split()[1]) if world.kept else 0
        return Assignment(self.partition.claim(world.identity), world.identity)

    def assign(self, world: World) -> None:
        call = self._claim(world)
        assigned = world.store_assign(call)
        self._open(world, call.owner, self.peeked or assigned)
        self.peeked = None

    def peek(self, world: World) -> None:
        self.peeked = held(world.kept)

    def assign_lost(self, world: World) -> None:
        world.store_assign(self._claim(world))

    def assign_late(self, world: World) -> None:
        world.late.append(self._claim(world))

    def reply_late(self, world: World) -> None:
        call = self._claim(world)
        self.reply = call.owner, world.store_assign(call)

    def late_reply(self, world: World) -> None:
        (owner, assigned), self.reply = self.reply or ("", Assigned(None, None)), None
        try:
            self._open(world, owner, assigned)
        except FencedError:
            return  # as it must be: nothing changes

    def _open(self, world: World, owner: str, assigned: Assigned) -> None:
        partition = self.partition
        partition.replaced = {"m"} - {world.chosen}
        opening = partition.open(owner, assigned, world.commit, world.log_start, world.end)
        if opening.checks:
            partition.verify(owner, {check.offset: world.crc(check.offset) for check in opening.checks})
        world.opened(opening, rebuilt=opening.start is Start.LOST)
        self.model = partition.identity.model

    def crash(self, world: World) -> None:
        self.drop(world)
        self.rows, self.dirty, self.stale, self.reply = {}, set(), [], None

    def drop(self, world: World) -> None:
        """Rule R11."""
        self.partition.drop()
        self.reads = False
        self.stale = (self.stale + self.unacked)[-1:] if world.budget.get("stale") else []
        self.unacked, self.copies, self.sent = [], {}, 0
        if world.broken != "R11":
            self.rows, self.dirty = {}, set()

    # -- records

    def step(self, world: World, records: int = 1) -> None:
        """One batch."""
        partition = self.partition
        if partition.position < world.log_start:
            world.skipped(partition.out_of_range(world.topic_id, world.log_start, world.end))
            return
        offsets = [o for o in range(partition.position, world.end) if world.log[o] is not None][:records]
        if not offsets:
            partition.advance(world.end)
            return
        series = {offset: world.series(offset) for offset in offsets}
        for one in set(series.values()) - set(self.rows):
            found = load(world.kept, partition.owner, partition.confirmed_seq, one, world.broken)
            self.rows[one] = found or Row(-1, (), self.model)
        if not self.reads and not world.store_mark(Word(partition.owner or "", "reading")):
            raise FencedError
        self.reads = world.begun = True
        batch = partition.begin(np.array(offsets), world.crc(offsets[-1]))
        muted = partition.muted(np.array(offsets))
        outputs = [o for o, mute in zip(offsets, muted, strict=True) if self._apply(world, series[o], o) and not mute]
        if left_out := set(offsets) - set(outputs) - world.done:
            raise ViolationError(f"guarantee 1: outputs of {left_out} are left out, but were never acknowledged")
        partition.stepped(batch)
        self.unacked.append((batch, tuple(outputs)))
        if not outputs:
            self.ack(world, len(self.unacked) - 1)

    def _apply(self, world: World, series: bytes, offset: int) -> bool:
        """Step a row with a record; False where the row reflects it already (rule R12)."""
        row = self.rows[series]
        if row.offset >= offset and world.broken != "R12":
            return False
        self.rows[series] = row = Row(offset, (*row.history, offset), self.model)
        self.dirty.add(series)
        world.check_history(row, "an output")
        return True

    def ack(self, world: World, i: int) -> None:
        batch, outputs = self.unacked.pop(i)
        world.published |= set(outputs)
        self.partition.acknowledged(batch)

    def stale_ack(self, world: World, i: int) -> None:
        batch, outputs = self.stale.pop(i)
        world.published |= set(outputs)
        self.partition.acknowledged(batch)

    def evict(self, world: World, series: bytes) -> None:
        del self.rows[series]
        self.dirty.discard(series)

    # -- checkpoints

    def cut(self, world: World) -> None:
        if self.partition.pending is not None and world.broken == "R3":
            self.partition.pending = None  # a call is given up, and its number taken for something else
        checkpoint = self.partition.cut()
        self.sent, self.copies = 0, {series: self.rows[series] for series in self.dirty}
        if world.broken != "R5 marks":
            self.dirty = set()
        if checkpoint and self.partition.may_send(checkpoint):
            self._writes(world, checkpoint)

    def _writes(self, world: World, checkpoint: Checkpoint) -> list[Write]:
        copies = self.copies
        if world.broken == "R5 copies" and not checkpoint.writes:
            copies = {series: self.rows.get(series, row) for series, row in copies.items()}
        series = sorted(copies)
        rows = [copies[one].encode() for one in series]
        writes = self.partition.writes(checkpoint, series, rows, CHUNK_ROWS, world.topic_id)
        if world.recreated and world.topic_id:
            raise ViolationError("guarantee 5: a checkpoint of a topic that is not the one of the stored state")
        return writes

    def deliver(self, world: World) -> None:
        checkpoint = self.partition.pending
        assert checkpoint is not None
        writes = self._writes(world, checkpoint)
        if not world.store_write(writes[self.sent]):
            raise FencedError
        self.sent += 1
        if self.sent < len(writes):
            return
        self.partition.confirmed(checkpoint)
        if world.broken == "R5 marks":
            self.dirty -= set(self.copies)
        self.copies, self.sent = {}, 0
        if not world.budget.get("slow_commit"):
            self.commit(world)

    def lost(self, world: World) -> None:
        assert self.partition.pending is not None
        world.store_write(self._writes(world, self.partition.pending)[self.sent])

    def delay(self, world: World, i: int) -> None:
        assert self.partition.pending is not None
        world.late.append(self.partition.pending.writes[i])

    def tick(self, world: World) -> None:
        """One interval of an idle partition (rule R14)."""
        known = knows(world.kept, self.partition.owner, self.partition.confirmed_seq)
        if not known and world.broken != "R14":
            raise FencedError
        if not known:
            raise ViolationError(
                "guarantee 5: the store lost or gave away the partition, and its owner does not notice"
            )

    def commit(self, world: World) -> None:
        if commit := self.partition.commit():
            world.commit = commit
            self.partition.committed(commit)

    def leave(self, world: World) -> None:
        """Hand over as one should."""
        world.budget["leave"] -= 1
        owner = self.partition.owner or ""
        self.drop(world)
        world.store_mark(Word(owner, ""))

    def leave_late(self, world: World) -> None:
        """The same, and the store hears of it only when somebody else may own the partition."""
        world.budget["leave"] -= 1
        world.late.append(Word(self.partition.owner or "", ""))
        self.drop(world)

    def reload(self, world: World) -> None:
        world.waived, world.chosen = True, "n"
        checkpoint = self.partition.reload(replace(self.partition.identity, model="n"))
        self.rows, self.dirty, self.copies, self.sent, self.model = {}, set(), {}, 0, "n"
        self._writes(world, checkpoint)
