"""A bounded model check of the partition: no order of events breaks a guarantee; without any one rule, some does."""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from stream_gru.protocol.opening import TAG
from stream_gru.protocol.partition import Batch, Checkpoint, Commit, Opening, Partition
from stream_gru.stores import Assigned, Identity, Write
from tests.model.search import explore
from tests.model.store import ViolationError
from tests.model.world import World

# -- partitions that break one rule


class R4OffsetFirst(Partition):
    """The first chunk moves the offset."""

    def writes(self, checkpoint: Checkpoint, *args: Any) -> list[Write]:
        made = super().writes(checkpoint, *args)
        if made[-1].offset is not None and len(made) > 1:
            made[0] = replace(made[0], offset=checkpoint.offset, marks=checkpoint.marks)
            made[-1] = replace(made[-1], offset=None)
        return made


class R6Unacknowledged(Partition):
    """A checkpoint does not wait for acknowledgements."""

    def may_send(self, checkpoint: Checkpoint) -> bool:
        return checkpoint is self.pending


class R6LastAcknowledged(Partition):
    """Acknowledged is what the last acknowledgement says, whatever came before it."""

    def acknowledged(self, batch: Batch) -> bool:
        while batch in self._in_flight:
            self._in_flight.popleft()
        return True


class R11Kept(Partition):
    """A fenced partition goes on from where it was."""

    def open(self, owner: str, assigned: Assigned, commit: Commit | None, log_start: int, log_end: int) -> Opening:
        opening = super().open(owner, assigned, commit, log_start, log_end)
        self.position = max(self.position, getattr(self, "was", 0))
        return opening

    def drop(self) -> None:
        self.was = max(getattr(self, "was", 0), getattr(self, "position", 0))
        super().drop()


class R13AnyCommit(Partition):
    """Replay is mute below any commit."""

    def open(self, owner: str, assigned: Assigned, commit: Commit | None, log_start: int, log_end: int) -> Opening:
        opening = super().open(owner, assigned, commit, log_start, log_end)
        self.mute_below = commit.offset if commit else 0
        return opening


class R13CommitAhead(Partition):
    """What is committed is what was read, not what was acknowledged."""

    def commit(self) -> Commit | None:
        return Commit(self.position, f"{TAG} {self.identity.topic_id}") if self.settled else super().commit()


class R15FirstStart(Partition):
    """No state is always a first start."""

    def open(self, owner: str, assigned: Assigned, commit: Commit | None, log_start: int, log_end: int) -> Opening:
        return super().open(owner, assigned, commit if assigned.offset is not None else None, log_start, log_end)


class R15Unremembered(Partition):
    """Where a first start began is not written down before records are taken in."""

    @property
    def settled(self) -> bool:
        return self.active


class R15Uncommitted(Partition):
    """What the store holds is enough to begin, without any commit."""

    @property
    def settled(self) -> bool:
        return self.active and self.stored is not None


class R16Silent(Partition):
    """What retention took is passed over."""

    def open(self, owner: str, assigned: Assigned, commit: Commit | None, log_start: int, log_end: int) -> Opening:
        if assigned.offset is not None:
            assigned = replace(assigned, offset=max(assigned.offset, log_start))
        return super().open(owner, assigned, commit, log_start, log_end)


class R17AtOpen(Partition):
    """The topic is not compared at an assignment."""

    def open(self, owner: str, assigned: Assigned, commit: Commit | None, log_start: int, log_end: int) -> Opening:
        return super().open(owner, replace(assigned, identity=None), commit, log_start, log_end)


class R17AtCheckpoint(Partition):
    """The topic is not compared before a checkpoint."""

    def writes(
        self, checkpoint: Checkpoint, series: Sequence[bytes], rows: Sequence[bytes], chunk_rows: int, topic_id: str
    ) -> list[Write]:
        return super().writes(checkpoint, series, rows, chunk_rows, self.identity.topic_id)


class R17WithoutIds(Partition):
    """The last record applied is not compared where there are no topic ids."""

    def verify(self, owner: str, found: Mapping[int, int | None]) -> None:
        super().verify(owner, {})


class R18Undrained(Partition):
    """A reload does not wait for what is in flight."""

    def reload(self, identity: Identity) -> Checkpoint:
        self.pending = Checkpoint(self._current(), self.position, dict(self._marks), identity)
        return self.pending

    def may_send(self, checkpoint: Checkpoint) -> bool:
        return super().may_send(checkpoint) or checkpoint.identity is not None


class R18NotAdopted(Partition):
    """Rows of a model that a reload replaced are gone on with."""

    def open(self, owner: str, assigned: Assigned, commit: Commit | None, log_start: int, log_end: int) -> Opening:
        opening = super().open(owner, assigned, commit, log_start, log_end)
        self.pending = None
        self._settle()
        return opening


class R20LateReply(Partition):
    """The reply to an earlier claim is taken for the reply to this one."""

    def open(self, owner: str, assigned: Assigned, commit: Commit | None, log_start: int, log_end: int) -> Opening:
        self.active = False
        return super().open(self.owner or "", assigned, commit, log_start, log_end)


# -- what is explored


@dataclass(frozen=True)
class Case:
    """A log (the series of each record), how much trouble there is, and which rule is broken."""

    log: tuple[int, ...]
    budget: Mapping[str, int] = field(default_factory=dict)
    broken: str = ""
    partition: type[Partition] = Partition
    topic_id: str = "T"
    start_at: str = "earliest"

    def world(self) -> World:
        return World(
            log=self.log,
            budget=dict(self.budget),
            partition_class=self.partition,
            broken=self.broken,
            topic_id=self.topic_id,
            start_at=self.start_at,
        )

    def __str__(self) -> str:
        name = self.partition.__name__ if self.partition is not Partition else self.broken
        return " ".join(
            [name, *self.budget, f"{len(self.log)} records", *([] if self.topic_id else ["no ids"])]
        ).strip()


def trouble(**budget: int) -> dict[str, int]:
    return budget


A, AA, AB, AAA, ABA = (0,), (0, 0), (0, 1), (0, 0, 0), (0, 1, 0)
BACK = {"save": 1, "rollback": 1}

SOUND = [
    Case(AB, trouble(crash=1, lost=1, delay=1)),
    Case(AA, trouble(crash=1, evict=1, rebalance=1)),
    Case(AA, trouble(rebalance=2)),
    Case(A, trouble(rebalance=2) | BACK),
    Case(A, trouble(delay=1, rebalance=1) | BACK),
    Case(ABA, trouble(delay=1) | BACK),
    Case(AAA, trouble(evict=1, lost=1) | BACK),
    Case(AA, trouble(stale=1, slow_commit=1, crash=1) | BACK),
    Case(AB, trouble(assign_late=1, assign_lost=1, crash=1)),
    Case(A, trouble(reply_late=1, rebalance=2)),
    Case(AA, trouble(operator=1, flush=1, crash=1)),
    Case(AAA, trouble(flush=1, crash=1, slow_commit=1, append=2), start_at="latest"),
    Case(AA, trouble(flush=1, crash=1, retain=1)),
    Case(AA, trouble(retain=1, crash=1) | BACK),
    Case(AA, trouble(rebalance=1, retain=2, append=1)),
    Case(AA, trouble(recreate=1, crash=1, flush=1)),
    Case(AA, trouble(recreate=1, crash=1, flush=1), topic_id=""),
    Case(AA, trouble(reload=1, crash=1)),
    Case(A, trouble(reload=1, rebalance=1)),
    Case(AA, trouble(leave=2, rebalance=1)),
    Case(A, trouble(leave=1, rebalance=1) | BACK),
]

MUTANTS = [
    Case(AA, trouble(assign_late=1, delay=1), "R1 constant"),
    Case(A, trouble(crash=1, delay=1), "R1 constant"),
    Case(AA, trouble(rebalance=2) | BACK, "R1 epoch"),
    Case(AA, trouble(rebalance=1), "R2 owner"),
    Case(AA, trouble(delay=1, lost=1), "R2 repeat"),
    Case(AB, BACK, "R2 turn"),
    Case(ABA, trouble(flush=1), "R2 missing"),
    Case(AAA, trouble(lost=1, evict=1), "R3"),
    Case(AB, trouble(), partition=R4OffsetFirst),
    Case(AA, trouble(), "R5 copies"),
    Case(AAA, trouble(evict=1), "R5 marks"),
    Case(A, trouble(), partition=R6Unacknowledged),
    Case(AB, trouble(), partition=R6LastAcknowledged),
    Case(AA, trouble(evict=1), "R7"),
    Case(AA, trouble(evict=1), "R8"),
    Case(AA, trouble(evict=1) | BACK, "R9"),
    Case(AA, trouble(evict=1, flush=1), "R9"),
    Case(AA, trouble(rebalance=1), "R10"),
    Case(AAA, BACK, "R11"),
    Case(AA, BACK, partition=R11Kept),
    Case(AB, trouble(crash=1), "R12"),
    Case(A, trouble(operator=1, crash=1), partition=R13AnyCommit),
    Case(A, trouble(slow_commit=1, crash=1), partition=R13CommitAhead),
    Case(A, trouble(flush=1), "R14"),
    Case(A, trouble(flush=1), partition=R15FirstStart),
    Case(AA, trouble(flush=1, append=1), partition=R15FirstStart, start_at="latest"),
    Case(AA, trouble(crash=1, append=1), partition=R15Unremembered, start_at="latest"),
    Case(A, trouble(slow_commit=1, flush=1), partition=R15Uncommitted),
    Case(AA, trouble(crash=1, retain=1), partition=R16Silent),
    Case(AA, trouble(recreate=1, crash=1), partition=R17AtOpen),
    Case(AA, trouble(recreate=1), partition=R17AtCheckpoint),
    Case(AA, trouble(recreate=1, crash=1), partition=R17WithoutIds, topic_id=""),
    Case(A, trouble(reload=1), "R18", partition=R18Undrained),
    Case(A, trouble(reload=1), "R18 rows"),
    Case(AA, trouble(reload=1, crash=1), partition=R18NotAdopted),
    Case(A, trouble(reply_late=1, rebalance=2), partition=R20LateReply),
    Case(AA, trouble(leave=1, rebalance=1), "R21"),
]


@pytest.mark.parametrize("case", SOUND + MUTANTS, ids=str)
def test_what_happens_leaves_the_world_before_it(case: Case) -> None:
    """`World.after` copies by hand. A walk at random; at each world everything that may happen is tried."""
    world, rng = case.world(), random.Random(0)
    for _ in range(40):
        before, following = pickle.dumps(world), []
        for action in world.actions():
            with suppress(ViolationError):
                following.append(world.after(action))
        assert pickle.dumps(world) == before
        if not following:
            return
        world = rng.choice(following)


@pytest.mark.slow
@pytest.mark.parametrize("case", SOUND, ids=str)
def test_no_order_of_events_breaks_a_guarantee(case: Case) -> None:
    found = explore(case.world, max_states=50_000)
    assert found.violation is None, "\n".join([found.violation or "", *map(str, found.trace)])
    assert found.complete
    assert found.finished


@pytest.mark.slow
@pytest.mark.parametrize("case", MUTANTS, ids=str)
def test_without_a_rule_some_order_does(case: Case) -> None:
    found = explore(case.world, max_states=20_000)
    assert found.violation is not None, f"not caught in {found.states} states (all of them: {found.complete})"
    whole = explore(replace(case, broken="", partition=Partition).world, max_states=min(found.states, 5000))
    assert whole.violation is None
