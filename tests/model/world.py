"""A small world around the real partition state machine: a log, a store, Kafka's commit, two workers, and troubles.

`World.actions` lists everything that may happen next and `World.apply` makes it happen, checking the guarantees; a
breadth-first search over both visits every order of events within the budget of troubles.

`broken` names the rule that the store or the worker does not keep; the rules of the state machine are broken by another
class of partition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stream_gru.errors import FencedError, IdentityError
from stream_gru.protocol.partition import Commit, Gap, Opening, Partition, Policy, Start, record_crc
from stream_gru.stores import Assigned, Identity, PartitionId, Write
from tests.model.member import Member, Owners, shallow
from tests.model.store import Assignment, Kept, Row, ViolationError, Word, assign, decode, held, mark, write

Action = tuple[Any, ...]


@dataclass
class World:
    """One partition, everything that touches it, and how much trouble is still to come."""

    log: tuple[int | None, ...]  # the series of each record; None: compaction took it
    budget: dict[str, int]
    partition_class: type[Partition] = Partition
    broken: str = ""
    topic_id: str = "T"
    start_at: str = "earliest"
    log_start: int = 0
    kept: Kept | None = None
    saved: Kept | None = None
    commit: Commit | None = None
    published: frozenset[int] = frozenset()
    gaps: frozenset[int] = frozenset()  # said aloud
    below_first: int = 0  # a first start at the end leaves these out
    begun: bool = False  # a record was taken in
    waived: bool = False  # guarantee 4, after a gap, a rebuild or a reload
    recreated: bool = False
    restored: bool = False  # the store went back in time, and what it says of owners with it
    named: int = 0  # which member the group names
    chosen: str = "m"  # the group's model
    late: list[Write | Assignment | Word] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.holes = frozenset(o for o, series in enumerate(self.log) if series is None)
        policy = Policy(start=self.start_at)  # type: ignore[arg-type]  # one of its two words
        for name in "AB":
            owners = Owners(name if self.broken != "R1 epoch" else "epoch ", self.broken == "R1 constant")
            self.members.append(Member(self.partition_class(PartitionId("g", "t", 0), policy, owners)))

    @property
    def end(self) -> int:
        """The log's end: what is still to be appended is not there yet."""
        return len(self.log) - self.budget.get("append", 0)

    @property
    def done(self) -> frozenset[int]:
        """Offsets that need no output any more."""
        return self.published | self.gaps | self.holes | set(range(self.below_first))

    @property
    def finished(self) -> bool:
        """Every record has its output, and all of them are stored."""
        return self.done >= set(range(self.end)) and self.kept is not None and self.kept.offset == self.end

    @property
    def identity(self) -> Identity:
        """What a worker is sure of when it claims: it serves the group's model."""
        return Identity(self.topic_id, 1, 1, self.chosen, "1")

    def crc(self, offset: int) -> int | None:
        """Of the record at that offset, if there is one."""
        there = self.log_start <= offset < self.end and offset not in self.holes
        return record_crc(None, self.series(offset)) if there else None

    def series(self, offset: int) -> bytes:
        """Of the record at that offset."""
        return str(self.log[offset]).encode()

    # -- what may happen, and what happens

    def actions(self) -> Iterator[Action]:
        """Everything that may happen next."""
        for i, member in enumerate(self.members):
            yield from ((name, i, *rest) for name, *rest in member.actions(self, named=i == self.named))
        yield from (("late", i) for i in range(len(self.late)))
        troubles = {
            "rebalance": True,
            "save": self.kept is not None,
            "rollback": self.saved is not None and self.saved != self.kept,
            "flush": self.kept is not None,
            "append": True,
            "retain": self.log_start < self.end,
            "operator": self.begun,
            # without topic ids a log that changes under a running worker can't be told from its own
            "recreate": self.begun and bool(self.topic_id or not any(m.partition.active for m in self.members)),
        }
        yield from ((name,) for name, possible in troubles.items() if possible and self.budget.get(name))

    def after(self, action: Action) -> World:
        """Another world in which that has happened; this one stays. Raises `ViolationError`."""
        made = shallow(self)
        made.budget, made.late, made.members = dict(self.budget), list(self.late), list(self.members)
        if not hasattr(self, f"_{action[0]}"):  # happens to one worker alone: the other is never changed by it
            made.members[action[1]] = self.members[action[1]].copy()
        made.apply(action)
        return made

    def apply(self, action: Action) -> None:
        """Let it happen. Raises `ViolationError`."""
        name, *rest = action
        before = self.kept
        if name in self.budget:
            self.budget[name] -= 1
        if hasattr(self, f"_{name}"):
            getattr(self, f"_{name}")(*rest)
        else:
            member = self.members[rest[0]]
            try:
                getattr(member, name)(self, *rest[1:])
            except FencedError:
                member.drop(self)
            except IdentityError:
                member.drop(self)
                member.refused = True
        if self.kept is not before:
            self._check_kept()
        for member in self.members:
            kept, mine = self.kept, member.partition.owner
            if kept and kept.owner == mine and member.reads and not kept.reading and not self.restored:
                raise ViolationError("rule R21: an owner reads, and its successor would not know that it did")
            missing = set(range(member.partition.acked)) - self.done if member.partition.active else set()
            if missing and not self.recreated:
                raise ViolationError(f"guarantee 1: {sorted(missing)} were passed over in silence")

    def _late(self, i: int) -> None:
        call = self.late.pop(i)
        if isinstance(call, Assignment):
            self.store_assign(call)
        elif isinstance(call, Word):
            self.store_mark(call)
        else:
            self.store_write(call)

    def _append(self) -> None:
        """One more record of the log is there: see `end`."""

    def _rebalance(self) -> None:
        self.named = 1 - self.named

    def _save(self) -> None:
        self.saved = self.kept

    def _rollback(self) -> None:
        self.kept, self.restored = self.saved, True

    def _flush(self) -> None:
        self.kept = None

    def _retain(self) -> None:
        self.log_start += 1

    def _operator(self) -> None:
        self.commit = Commit(self.end)

    def _recreate(self) -> None:
        """The topic is deleted and made again, with other records."""
        self.recreated = True
        self.topic_id = self.topic_id and "U"
        self.log = tuple(None if series is None else 10 + series for series in self.log)

    def store_assign(self, call: Assignment) -> Assigned:
        """Rule R1."""
        before = held(self.kept)
        self.kept = assign(self.kept, call)
        return before

    def store_write(self, call: Write) -> bool:
        """Rule R2. False: fenced."""
        kept = write(self.kept, call, self.broken)
        self.kept = kept or self.kept
        return kept is not None

    def store_mark(self, call: Word) -> bool:
        """Rule R21. False: fenced."""
        kept = mark(self.kept, call, self.broken)
        self.kept = kept or self.kept
        return kept is not None

    # -- the guarantees

    def opened(self, opening: Opening, *, rebuilt: bool) -> None:
        """Guarantee 5 of how a worker begins."""
        if self.recreated and self.kept and self.kept.rows:
            raise ViolationError(f"guarantee 5: a log was opened that is not the one of the stored state: {opening}")
        if self.recreated:  # with nothing stored, a new log is a new beginning
            self.recreated, self.published, self.gaps = False, frozenset(), frozenset()
        if opening.start is Start.FIRST:
            if self.begun:
                raise ViolationError("guarantee 5: lost state was taken for a first start")
            self.below_first = opening.position
        whole = self.log_start == 0 == self.below_first  # a rebuild sees every record that the lost state had seen
        self.waived |= rebuilt and not whole
        self.skipped(opening.gap)

    def skipped(self, gap: Gap | None) -> None:
        """A gap was said aloud."""
        if gap is not None:
            self.gaps |= set(range(gap.start, gap.end))
            self.waived = True

    def check_history(self, row: Row, what: str) -> None:
        """Guarantee 4: a row reflects every record of its series, once each."""
        number = self.log[row.offset]
        wanted = tuple(o for o in range(self.below_first, row.offset + 1) if self.log[o] == number)
        if not self.waived and not self.recreated and row.history != wanted:
            raise ViolationError(f"guarantee 4: {what} at {row.offset} is made of {row.history}, not of {wanted}")

    def _check_kept(self) -> None:
        """Guarantees 1 and 2 of what is stored."""
        if self.kept is None or self.recreated:
            return
        rows = {series: decode(row) for series, row in self.kept.rows}
        for offset, number in enumerate(self.log):
            if number is None:
                continue
            row = rows.get(self.series(offset))
            covered = row is not None and row.offset >= offset
            below = self.kept.offset is not None and self.kept.offset > offset
            if (covered or below) and offset not in self.done:
                raise ViolationError(f"guarantee 1: {offset} is stored as done, but its output was never acknowledged")
            if below and not covered and not self.waived and offset >= self.below_first:
                raise ViolationError(
                    f"guarantee 2: the stored offset is past {offset}, but its row does not reflect it"
                )
        for row in rows.values():
            self.check_history(row, "a stored row")
            if row.model != self.kept.identity.model:
                raise ViolationError("guarantee 2: a stored row is not of the stored model")

    # -- telling worlds apart

    def key(self) -> tuple[Any, ...]:
        """The same for two worlds that can't be told apart: owners are named in the order in which they are met."""
        names: dict[str, int] = {"": -1}

        def name(owner: str | None) -> int:
            return names.setdefault(owner or "", len(names))

        def kept(k: Kept | None) -> tuple[Any, ...] | None:
            return k and (name(k.owner), *k[1:])

        def call(c: Write | Assignment | Word) -> tuple[Any, ...]:
            if isinstance(c, Word):
                return (name(c.owner), c.reading)
            if isinstance(c, Assignment):
                return (name(c.owner), c.identity)
            return (name(c.owner), c.n, *c.series, *c.rows, c.offset)

        def member(m: Member) -> tuple[Any, ...]:
            p = m.partition
            batches = tuple((b.first, b.acknowledged) for b in p._in_flight)
            pending = p.pending and (p.pending.offset, p.pending.identity, *map(call, p.pending.writes))
            seen = (p.position, p.stored, p.confirmed_seq, p.mute_below, p._committed, p.active, p.settled)
            arena = (*sorted(m.rows.items()), None, *sorted(m.dirty), None, *sorted(m.copies.items()), m.model)
            acks = (tuple(o for _, o in m.unacked), tuple(o for _, o in m.stale))
            reply = m.reply and (name(m.reply[0]), m.reply[1].offset)
            peeked = m.peeked and m.peeked.offset
            return (name(p.owner), *seen, batches, pending, arena, acks, m.sent, m.refused, reply, peeked, m.reads)

        plain = (
            self.restored,
            self.log_start,
            self.commit,
            self.published,
            self.gaps,
            self.below_first,
            self.begun,
            self.waived,
        )
        calls = tuple(map(call, self.late))
        members = tuple(map(member, self.members))
        rest = (self.recreated, self.named, self.chosen, *self.budget.values())
        return (kept(self.kept), kept(self.saved), calls, members, plain, rest)
