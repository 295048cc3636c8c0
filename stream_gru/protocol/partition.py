"""One assigned partition as a state machine: no I/O, no clock, no asyncio. It is told what happened and says what may.

The life of a partition, as its caller runs it::

    owner = partition.claim(identity)                      # again, and with a new owner, for each attempt (R1)
    assigned = await store.assign(partition.id, owner, identity)
    # only now, behind the fence (R10): the group's commit, the log's start and end
    opening = partition.open(owner, assigned, commit, log_start, log_end)
    partition.verify(owner, {offset: record_crc(key, value), ...})    # of the records in opening.checks, if any
    # if opening.adopts: write partition.pending first, as a reload, below
    # restore rows; while not partition.settled: a checkpoint and a commit, as below; seek(partition.position)

    batch = partition.begin(offsets)                       # a batch's records are about to be stepped
    partition.stepped(batch)                               # their rows are; until then the partition is `torn`
    partition.acknowledged(batch)                          # later: every output is acknowledged, or none was due

    checkpoint = partition.cut()                           # and in the same turn copy the changed rows
    if partition.may_send(checkpoint):                     # later: once the outputs below the cut are acknowledged
        writes = partition.writes(checkpoint, series, rows, chunk_rows, topic_id)
        outcome = await store.write(partition.id, writes)  # unavailable: the same writes again, until it answers
        partition.confirmed(checkpoint)                    # or, FENCED: drop(), then claim again if still ours
    commit = partition.commit()                            # and partition.committed(commit) when Kafka has it

The rules. ``P`` is kept here, ``S`` by every store, ``W`` by the worker with what this class hands it.

===  ==  ==============================================================================================================
R1   PS  An assignment is one atomic call that makes a never-used random owner current, sets seq 0, returns the offset.
R2   S   A write is (owner, n): another owner or no key: FENCED; seq >= n: OK, nothing done; seq != n-1: FENCED.
R3   PW  (owner, n) names one byte string for ever; it is repeated until the store answers.
R4   PS  Only the last chunk of a checkpoint moves the offset, in the call that writes its rows; rows before control.
R5   PW  A checkpoint is a cut between two batches: the changed rows are copied there, and copies are what is sent.
R6   P   Nothing of a checkpoint is sent before every output below its cut is acknowledged. A timeout is no ack.
R7   W   Only a clean row is evicted ...
R8   PW  ... that is in no unconfirmed write (`pending`). Rows are written by checkpoints alone.
R9   PS  A load checks in its own call that the owner is current and seq >= `confirmed_seq`; only then is a missing
         row a new series. Primaries only.
R10  PW  First the fence, then the offset, the rows, the commit and the ends of the log.
R11  P   FENCED: everything held is dropped; only the member that the group names claims again, with a new owner.
R12  PW  The stored offset is the next to read. A record at or before its row's offset is neither stepped nor published.
R13  P   Replay is mute below the group's commit, if that commit carries our tag and the topic's identity; else nowhere.
R14  W   An idle partition probes (owner, `confirmed_seq`) every interval.
R15  P   No stored offset: a first start if the group has no commit, else state was lost: rebuilt aloud, or refused.
         So nothing is taken in before the beginning is in the store and in a commit (`settled`).
R16  P   Records that retention took before they were read are one gap, aloud, or refused; never a silent jump.
R17  P   The topic id is compared at every claim, gap and checkpoint; without ids, a crc32 of the last record applied.
R18  P   What is no record (a reload) is written under the same owner, drained, in one call. Where an owner ended
         before a reload of the group reached it, the next one begins with that call (`Opening.adopts`).
R19  -   Rows never expire here; a rule for that must depend on the log alone.
R20  P   Batches, checkpoints and replies carry their owner and are ignored when it is no longer current.
R21  SW  Whoever reads leaves word of it in the store, as its owner, and takes it back only when it hands over; so that
         its successor knows of an unclean end, and of what was being scored then (`guard.py`).
===  ==  ==============================================================================================================
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from stream_gru.columns import Bools, Ints
from stream_gru.errors import FencedError, IdentityError
from stream_gru.protocol.opening import (
    LAST,
    Commit,
    Gap,
    Opening,
    Policy,
    RecordCheck,
    Start,
    commit_of,
    compare,
    decide,
    gap_before,
    mark_of,
    record_crc,
)
from stream_gru.stores import Assigned, Identity, PartitionId, Write

__all__ = ["Batch", "Checkpoint", "Commit", "Gap", "Opening", "Partition", "Policy", "Start", "record_crc"]


@dataclass(slots=True, eq=False)
class Batch:
    """Records in flight: offsets [first, end)."""

    owner: str
    first: int
    end: int
    stepped: bool = False
    acknowledged: bool = False


@dataclass(slots=True, eq=False)
class Checkpoint:
    """A cut: all below `offset` is in the rows, nothing above."""

    owner: str
    offset: int
    marks: Mapping[str, str]
    identity: Identity | None = None  # set: a reload
    writes: list[Write] = field(default_factory=list)  # once made, these bytes for ever (R3)


class Partition:
    """One partition of one consumer group, from one assignment to the next."""

    identity: Identity  # since `claim`

    def __init__(
        self,
        partition_id: PartitionId,
        policy: Policy | None = None,
        new_owner: Callable[[], str] = lambda: secrets.token_hex(16),  # 128 random bits (R1)
    ) -> None:
        self.id, self.policy, self._new_owner = partition_id, policy or Policy(), new_owner
        self.drop()

    def drop(self) -> None:
        """R11, and the end of an assignment: forget everything; whatever still comes in is of no current owner."""
        self.owner: str | None = None
        self.active = False
        self.position = 0  # next to read
        self.stored: int | None = None  # the offset that the store holds
        self.confirmed_seq = 0  # R9, R14: the last write that the store is known to have
        self.mute_below = 0
        self._settled = False
        self.pending: Checkpoint | None = None
        self._in_flight: deque[Batch] = deque()
        self._marks: dict[str, str] = {}
        self._stored_marks: Mapping[str, str] = {}
        self._committed: int | None = None
        self._checks: tuple[RecordCheck, ...] = ()
        self.replaced: Set[str] = frozenset()  # set before `open`: models that reloads of the group took out of use

    # -- assignment

    def claim(self, identity: Identity) -> str:
        """Begin an attempt to take the partition: a new owner, nothing kept (R1, R11).

        `identity` is what the broker and the bundle say now (R17).
        """
        self.drop()
        self.identity = identity
        self.owner = self._new_owner()
        return self.owner

    def open(self, owner: str, assigned: Assigned, commit: Commit | None, log_start: int, log_end: int) -> Opening:
        """Decide where and how to begin, from what the store returned and what Kafka said after that (R10).

        Raises `FencedError` for the reply to an earlier attempt, `IdentityError` for foreign state, `StateLostError`
        and `GapError` where the settings say to refuse.
        """
        if owner != self.owner or self.active:  # R20
            raise FencedError(f"{self.id}: this reply belongs to an earlier claim of the partition")
        opening = decide(
            self.id,
            self.identity,
            self.policy,
            assigned=assigned,
            commit=commit,
            start=log_start,
            end=log_end,
            replaced=self.replaced,
        )
        self.position, self.stored = opening.position, assigned.offset
        self._marks, self._stored_marks = dict(assigned.marks), assigned.marks
        self._committed, self._checks = opening.mute_below, opening.checks
        self.mute_below = opening.mute_below or 0
        self.active = not opening.checks
        if opening.adopts:
            self.pending = Checkpoint(owner, self.position, dict(self._marks), self.identity)
        self._settle()
        return opening

    def verify(self, owner: str, found: Mapping[int, int | None]) -> None:
        """R17 for brokers without topic ids: the crc of each record in `Opening.checks`, None where there is none now.

        A commit whose record differs mutes nothing. Raises `FencedError` for an earlier claim, `IdentityError` if the
        last record applied is another one now.
        """
        if owner != self.owner:  # R20
            raise FencedError(f"{self.id}: these records were read for an earlier claim of the partition")
        for check in self._checks:
            actual = found.get(check.offset)
            if check.of_commit and actual != check.crc:
                self.mute_below, self._committed = 0, None  # in doubt, publish (R13)
            if not check.of_commit and actual not in (None, check.crc):
                raise IdentityError(
                    f"{self.id}: the record at offset {check.offset} is not the one that the state was made from: the "
                    "topic was deleted and made again. Forget it with `stream-gru state reset`, then start again"
                )
        self._checks, self.active = (), True
        self._settle()

    def out_of_range(self, topic_id: str, log_start: int, log_end: int) -> Gap | None:
        """R16: Kafka has no record at `position`. Moves there where it has one; seek to `position` afterwards.

        Returns the gap, or None if there is none after all. Raises `IdentityError` or `GapError`.
        """
        self._current()
        compare(self.id, self.identity, replace(self.identity, topic_id=topic_id))
        gap = gap_before(self.id, self.policy, self.position, log_start, log_end)
        self.position = gap.end if gap else self.position
        return gap

    # -- records

    def muted(self, offsets: Ints) -> Bools:
        """R13: which of these records have had their outputs acknowledged before and must not be published again."""
        return offsets < self.mute_below

    def begin(self, offsets: Ints, last_crc: int | None = None) -> Batch:
        """Take records in: rising offsets, not below `position`; holes (compaction, transactions) are passed over.

        `last_crc` is the `record_crc` of the last one, needed where the broker has no topic ids (R17).
        """
        owner = self._current()
        if not len(offsets) or offsets[0] < self.position or (offsets[1:] <= offsets[:-1]).any():
            raise ValueError(f"{self.id}: offsets must rise from {self.position} on, got {offsets}")
        batch = Batch(owner, self.position, int(offsets[-1]) + 1)
        if last_crc is not None:
            self._marks = {LAST: mark_of(batch.end - 1, last_crc)}
        elif not self.identity.topic_id:
            raise ValueError(f"{self.id}: the broker has no topic ids, so the crc of the last record is needed")
        self.position = batch.end
        self._in_flight.append(batch)
        return batch

    def stepped(self, batch: Batch) -> None:
        """The rows reflect the batch. What it says must be on its way out before anything else happens (R5)."""
        batch.stepped = True

    def acknowledged(self, batch: Batch) -> bool:
        """Every output of the batch is acknowledged (R6). False: it is of an earlier owner and was ignored (R20)."""
        if batch.owner != self.owner:
            return False
        batch.acknowledged = True
        while self._in_flight and self._in_flight[0].acknowledged:
            self._in_flight.popleft()
        return True

    def advance(self, position: int) -> None:
        """Pass over offsets that hold no records, as the consumer did (markers of transactions at the log's end)."""
        self._current()
        self.position = max(self.position, position)

    @property
    def acked(self) -> int:
        """Every output below is acknowledged."""
        return self._in_flight[0].first if self._in_flight else self.position

    @property
    def in_flight(self) -> int:
        """Batches that are not acknowledged, and those behind them."""
        return len(self._in_flight)

    @property
    def torn(self) -> bool:
        """A batch was begun and not stepped: rows may be ahead of outputs that nobody will see. For ever, if it raised.

        Then nothing is stored any more, and the owner does not hand over: its end is an unclean one (R5, R21).
        """
        return any(not batch.stepped for batch in self._in_flight)

    @property
    def changed(self) -> bool:
        """The position is not the stored one."""
        return self.active and self.position != self.stored

    @property
    def idle(self) -> bool:
        """Nothing happened since the last checkpoint, as far as is known here: a probe does instead of one (R14)."""
        return self._settled and not self._in_flight and self.pending is None and not self.changed and not self.commit()

    @property
    def settled(self) -> bool:
        """R15: the beginning is stored and the group has a commit, so that losing either is noticed; take in now."""
        return self._settled

    # -- checkpoints

    def cut(self) -> Checkpoint | None:
        """R5: a checkpoint of this moment, between two batches; None while another one is pending.

        The caller copies the changed rows and clears their marks before anything else happens.
        """
        owner = self._current()
        if self.torn:
            raise ValueError(f"{self.id}: a cut inside a batch would tear rows and offset apart")
        if self.pending is not None:
            return None
        self.pending = Checkpoint(owner, self.position, dict(self._marks))
        return self.pending

    def may_send(self, checkpoint: Checkpoint) -> bool:
        """R6: is every output below the cut acknowledged? Never for an earlier owner's checkpoint (R20)."""
        return checkpoint is self.pending and self.acked >= checkpoint.offset

    def writes(
        self, checkpoint: Checkpoint, series: Sequence[bytes], rows: Sequence[bytes], chunk_rows: int, topic_id: str
    ) -> list[Write]:
        """The numbered writes of a checkpoint; asked again, the same ones (R3).

        `series` and `rows` are the copies taken at the cut, `topic_id` is what the broker says now (R17). Raises
        `FencedError` for an earlier owner's checkpoint, `IdentityError` if the topic is another one now.
        """
        if checkpoint is not self.pending:
            raise FencedError(f"{self.id}: this checkpoint belongs to an earlier owner")
        if not self.may_send(checkpoint):
            raise ValueError(f"{self.id}: outputs below {checkpoint.offset} are not acknowledged (up to {self.acked})")
        compare(self.id, self.identity, replace(self.identity, topic_id=topic_id))
        if checkpoint.identity is not None and len(rows):
            raise ValueError(f"{self.id}: a reload begins without rows")
        if not checkpoint.writes:
            for n, at in enumerate(range(0, max(len(rows), 1), chunk_rows), self.confirmed_seq + 1):
                some = slice(at, at + chunk_rows)
                checkpoint.writes.append(Write(checkpoint.owner, n, series[some], rows[some]))
            checkpoint.writes[-1] = replace(  # R4
                checkpoint.writes[-1], offset=checkpoint.offset, marks=checkpoint.marks, identity=checkpoint.identity
            )
        return checkpoint.writes

    def confirmed(self, checkpoint: Checkpoint) -> bool:
        """The store holds the checkpoint. False: it is of an earlier owner and was ignored (R20)."""
        if checkpoint is not self.pending:
            return False
        self.confirmed_seq = checkpoint.writes[-1].n
        self.stored, self._stored_marks = checkpoint.offset, checkpoint.marks
        self.identity = checkpoint.identity or self.identity
        self.pending = None
        self._settle()
        return True

    def reload(self, identity: Identity) -> Checkpoint:
        """R18: a checkpoint that drops every row and takes a new identity, under the same owner.

        The partition must be drained: all acknowledged, nothing pending. Send `writes(checkpoint, (), (), ...)`.
        """
        owner = self._current()
        if self.pending is not None or self._in_flight:
            raise ValueError(f"{self.id}: drain before a reload: finish the batches in flight and the checkpoint")
        if (identity.buckets, identity.topic_id) != (self.identity.buckets, self.identity.topic_id):
            raise ValueError(f"{self.id}: a reload changes the model, not the buckets or the topic")
        self.pending = Checkpoint(owner, self.position, dict(self._marks), identity)
        return self.pending

    def commit(self) -> Commit | None:
        """What to commit to Kafka now, if anything: the confirmed cut, with our tag (R13). Never back below our own."""
        known = -1 if self._committed is None else self._committed
        if not self.active or self.stored is None or self.stored <= known:
            return None
        return commit_of(self.identity, self.stored, self._stored_marks.get(LAST))

    def committed(self, commit: Commit) -> None:
        """Kafka has the commit."""
        self._committed = max(commit.offset, self._committed or 0)
        self._settle()

    # -- the inside

    def _settle(self) -> None:
        adopting = self.pending is not None and self.pending.identity is not None
        self._settled |= self.active and not adopting and not self.changed and self.commit() is None

    def _current(self) -> str:
        if self.owner is None or not self.active:
            raise FencedError(f"{self.id}: the partition is not open")
        return self.owner
