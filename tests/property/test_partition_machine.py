"""Long random runs of the partition's world: big batches, many series, holes, and everything going wrong now and then.

The model check visits every order of few events; this visits few orders of many. Whatever happened, once the troubles
are over one worker must bring everything to its end.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.model.store import knows
from tests.model.world import Action, World

# How often something happens beside the other things that may, and for troubles how many there are in a run.
WORK = {"assign": 8, "step": 12, "ack": 10, "stale_ack": 2, "cut": 6, "deliver": 8, "commit": 4, "tick": 1, "late": 2}
TROUBLES = {"crash": 2, "rebalance": 3, "lost": 2, "delay": 3, "assign_lost": 1, "assign_late": 2, "reply_late": 1}
TROUBLES |= {"evict": 6, "save": 2, "rollback": 2, "flush": 1, "retain": 2, "operator": 1, "reload": 1}
WEIGHTS = {"late_reply": 1, "append": 2} | dict.fromkeys(TROUBLES, 1) | WORK
AFTERWARDS = ("late", "assign", "ack", "stale_ack", "deliver", "commit", "cut", "step", "late_reply", "tick")
PATIENCE = 2000


class PartitionMachine(RuleBasedStateMachine):
    """Anything possible happens next; the world checks the guarantees after each event."""

    world: World
    whole = False

    @initialize(
        log=st.lists(st.integers(-1, 4), min_size=15, max_size=60),
        start_at=st.sampled_from(["earliest", "latest"]),
        ids=st.booleans(),
        slow_commit=st.booleans(),
        troubles=st.sets(st.sampled_from(sorted(TROUBLES)), max_size=5),
    )
    def begin(self, log: list[int], start_at: str, ids: bool, slow_commit: bool, troubles: set[str]) -> None:
        budget = {name: TROUBLES[name] for name in sorted(troubles)}
        budget |= {"append": len(log) // 2, "stale": 1, "slow_commit": int(slow_commit)}
        self.world = World(
            log=tuple(None if series < 0 else series for series in log),
            budget=budget,
            topic_id="T" if ids else "",
            start_at=start_at,
        )

    @rule(which=st.integers(0, 10_000), records=st.integers(1, 5))
    def event(self, which: int, records: int) -> None:
        possible = [a for a in self.world.actions() if not self.idle(a) for _ in range(WEIGHTS[a[0]])]
        if possible:
            action = possible[which % len(possible)]
            self.whole = False  # a world that broke in an event is not brought to its end
            self.world.apply((*action, records) if action[0] == "step" else action)
            self.whole = True

    def idle(self, action: Action) -> bool:
        """A tick that would find all as it was."""
        if action[0] != "tick":
            return False
        partition = self.world.members[action[1]].partition
        return knows(self.world.kept, partition.owner, partition.confirmed_seq)

    def teardown(self) -> None:
        """The troubles are over: what is late arrives, and the member that the group names does its work."""
        if not self.whole:
            return
        world = self.world
        for name in TROUBLES:
            world.budget.pop(name, None)
        while world.budget["append"]:
            world.apply(("append",))
        for _ in range(PATIENCE):
            if world.finished and not world.late:
                return
            mine = [a for a in world.actions() if a[0] == "late" or a[1] == world.named]
            world.apply(min(mine, key=lambda action: AFTERWARDS.index(action[0])))
        raise AssertionError("one worker alone does not come to the end")


PartitionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=100, deadline=None)
TestPartition = pytest.mark.slow(PartitionMachine.TestCase)
