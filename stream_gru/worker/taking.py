"""Taking partitions: own, restore, seek, resume; again for those for which the store or Kafka does not answer."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalGenerationError, KafkaError, RebalanceInProgressError, UnknownMemberIdError

from stream_gru.errors import BrokerError, FencedError, StoreUnavailableError
from stream_gru.stores import Chosen, StoreAnswer
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.fences import Fences
from stream_gru.worker.live import Live, Parts, Spawn
from stream_gru.worker.patience import RETRY_S
from stream_gru.worker.restoring import Claimed, Restoring
from stream_gru.worker.side_by_side import named, side_by_side
from stream_gru.worker.topic_watch import TopicWatch

log = logging.getLogger(__name__)

NOT_A_MEMBER = (IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)
TRIED_AGAIN = (StoreUnavailableError, BrokerError, KafkaError, FencedError, TimeoutError)
_LONGEST_RETRY_S = 10.0  # between two attempts, which begin at RETRY_S and double
_TOGETHER_PARTITIONS = 32  # that go live together, while the next ones are restored


class Taking:
    """One task for each assignment; `begin` and `give_up` may come at any time."""

    def __init__(
        self, parts: Parts, checkpointer: Checkpointer, fences: Fences, topics: TopicWatch, spawn: Spawn
    ) -> None:
        """`spawn` starts a task whose error ends the worker."""
        self._parts = parts
        self._checkpointer = checkpointer
        self._fences = fences
        self._topics = topics
        self._spawn = spawn
        self._restoring = Restoring(parts, checkpointer)
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._elsewhere: set[TopicPartition] = set()  # which the group gave away, though we have not heard
        self._problem = ""
        self.outdated = asyncio.Event()  # the group serves another model: whoever can, catches up

    @property
    def partitions(self) -> list[TopicPartition]:
        """What is being taken."""
        return sorted(self._tasks)

    def heard(self) -> None:
        """The group has said what is ours."""
        self._elsewhere.clear()
        self.report()

    def begin(self, tps: Collection[TopicPartition], work: Coroutine[Any, Any, None] | None = None) -> None:
        """Take these, from the beginning; `work` does so where there is something to do before."""
        self.give_up(set(tps))
        self._tasks |= dict.fromkeys(tps, self._spawn(work or self.take(sorted(tps))))
        self.report()

    def give_up(self, tps: set[TopicPartition]) -> None:
        """End the tasks that take any of these; what else such a task takes is begun again."""
        self._elsewhere -= tps
        tasks = {self._tasks[tp] for tp in tps & self._tasks.keys()}
        others = sorted(tp for tp, task in self._tasks.items() if task in tasks and tp not in tps)
        self._tasks = {tp: task for tp, task in self._tasks.items() if task not in tasks}
        for task in tasks:
            task.cancel()
        if others:
            self._tasks |= dict.fromkeys(others, self._spawn(self.take(others)))
        self.report()

    def close(self) -> None:
        """Give up all of it."""
        for task in set(self._tasks.values()):
            task.cancel()

    def report(self) -> None:
        """Tell /ready what is not there yet."""
        says = []
        if self._tasks:
            says.append(f"{named(self._tasks)}: being restored{self._problem}")
        if self._elsewhere:
            says.append(f"{named(self._elsewhere)}: waiting for the group")
        self._parts.health.report("assignment", "; ".join(says) or None)

    async def take(self, tps: Sequence[TopicPartition]) -> None:
        """Until all are taken; with new owners each time the store or Kafka does not answer (rule R1)."""
        left, tries, said, began = list(tps), 0, "", time.monotonic()
        while left:
            try:
                failed = await self._attempt(await self._still_mine(left))
            except TRIED_AGAIN as error:
                failed = dict.fromkeys(left, error)
            for tp in set(left) - failed.keys():
                self._tasks.pop(tp, None)
            self._fences.news.set()  # there may be one that was fenced while others were still being restored
            left = sorted(failed)
            self._problem = f" ({failed[left[0]]}; it is tried again)" if left else ""
            self.report()
            if left:
                level = logging.INFO if self._problem == said else logging.WARNING
                said = self._problem
                log.log(level, "%s: being restored%s", named(left), said)
                await asyncio.sleep(min(_LONGEST_RETRY_S, RETRY_S * 2**tries) * random.uniform(0.5, 1))
                tries += 1
        log.info("%s: taken in %.2f s", named(tps), time.monotonic() - began)

    async def _still_mine(self, tps: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Without those that were fenced and that the group gave to somebody else (rule R11).

        Only a current member may commit, so committing what is committed asks the group.
        """
        consumer, kafka = self._parts.consumer, self._parts.settings.kafka
        doubted = [tp for tp in tps if tp in self._fences.doubted]
        try:
            if doubted:
                commits = await self._parts.cluster.commits(kafka.group_id, doubted)
                await self._parts.commits.commit(consumer, commits)
                if len(commits) < len(doubted):
                    await asyncio.sleep(kafka.session_timeout_s)  # a lost member hears of it by then
        except NOT_A_MEMBER as error:
            log.info("%s: no longer this worker's: %s", named(doubted), error)
            self._elsewhere |= set(doubted) & consumer.assignment()
        self._fences.doubted -= set(doubted)
        assigned = consumer.assignment()
        return [tp for tp in tps if tp in assigned and tp not in self._elsewhere]

    async def _attempt(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Exception]:
        """Take partitions together: what can be asked for all of them is asked once. Those that failed, and why.

        Raises what concerns all of them.
        """
        parts, group = self._parts, self._parts.settings.kafka.group_id
        if not tps:
            return {}
        topics = await parts.cluster.topics({tp.topic for tp in tps})
        failed: dict[TopicPartition, Exception] = {
            tp: BrokerError(f"there is no topic {tp.topic} any more") for tp in tps if tp.topic not in topics
        }
        self._topics.taken(topics)
        mine = [tp for tp in tps if tp.topic in topics]
        claimed = await side_by_side(mine, lambda tp: self._restoring.claim(tp, topics[tp.topic]))
        if not mine:
            return failed
        # Rule R10: what is asked before every fence stands may be old.
        commits = await parts.cluster.commits(group, mine)
        starts, ends = await parts.consumer.beginning_offsets(mine), await parts.consumer.end_offsets(mine)
        chosen = await parts.store.chosen(group, files=False)
        if chosen and chosen.digest != parts.engine.bundle.digest:
            self.outdated.set()  # whoever catches up begins all of this anew
            raise FencedError(f"the group serves {chosen.name} by now")
        return failed | await self._restore(claimed, commits, starts, ends, chosen)

    async def _restore(
        self,
        claimed: Sequence[Claimed],
        commits: Mapping[TopicPartition, Any],
        starts: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        chosen: Chosen | None,
    ) -> dict[TopicPartition, Exception]:
        """Restore what is behind its fence, and begin to read it. Those that failed, and why."""
        parts = self._parts
        failed: dict[TopicPartition, Exception] = {}
        restored: list[Live] = []

        async def restore(one: Claimed) -> None:
            one.state.replaced = chosen.replaced.keys() if chosen else frozenset()
            try:
                opening = one.state.open(one.owner, one.assigned, commits.get(one.tp), starts[one.tp], ends[one.tp])
                restored.append(await self._restoring.restore(one, opening, ends[one.tp]))
            except TRIED_AGAIN as error:
                failed[one.tp] = error
                if isinstance(error, FencedError):
                    self._fences.doubt(one.tp)

        try:
            for at in range(0, len(claimed), _TOGETHER_PARTITIONS):
                await side_by_side(claimed[at : at + _TOGETHER_PARTITIONS], restore)
                failed |= await self._go_live(restored)
                restored.clear()
        finally:
            for live in restored:
                if parts.live.get(live.tp) is not live:
                    parts.release(live)
        return failed

    async def _go_live(self, lives: Sequence[Live]) -> dict[TopicPartition, Exception]:
        """Begin to read restored partitions; those that were lost meanwhile."""
        parts = self._parts
        # Where they begin must be in the store and in Kafka before the first record is taken in (rule R15): else a
        # store that is emptied now would look like a first start.
        while beginning := [live for live in lives if live.held and not live.state.settled]:
            await self._checkpointer.checkpoint(lambda: beginning)
            if any(live.held and not live.state.settled for live in beginning):
                await asyncio.sleep(RETRY_S)
        outcomes = await side_by_side(lives, lambda live: parts.store.mark(live.id, live.owner, str(live.guard)))
        for live, outcome in zip(lives, outcomes, strict=True):
            if outcome is StoreAnswer.FENCED and live.held:
                self._fences.met(live)
            elif live.held and live.tp in parts.consumer.assignment():
                parts.consumer.seek(live.tp, live.state.position)
                parts.live[live.tp] = live
                parts.consumer.resume(live.tp)
            else:
                parts.release(live)
        return {
            live.tp: FencedError(f"{live.id}: fenced while it was restored")
            for live in lives
            if live.tp in self._fences.doubted
        }
