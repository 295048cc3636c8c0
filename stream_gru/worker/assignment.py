"""What happens when the group gives partitions to this worker or takes them away."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalGenerationError, KafkaError, RebalanceInProgressError, UnknownMemberIdError

from stream_gru.errors import BrokerError, FencedError, StoreError, StoreUnavailableError
from stream_gru.kafka.cluster import Topic
from stream_gru.process.tasks import own
from stream_gru.protocol.opening import compare
from stream_gru.stores import Identity, Outcome, PartitionId, Store
from stream_gru.worker.checkpoint import Checkpointer
from stream_gru.worker.live import Live, Parts, Spawn
from stream_gru.worker.patience import RETRY_S, Patience
from stream_gru.worker.restoring import Claimed, Restoring

log = logging.getLogger(__name__)

S = TypeVar("S")
T = TypeVar("T")
NOT_A_MEMBER = (IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)
PASSING = (StoreUnavailableError, BrokerError, KafkaError, FencedError, TimeoutError)
_MOST_RETRY_S = 10.0
_AT_ONCE = 16  # partitions that are assigned, restored or handed over side by side
_TOGETHER = 32  # partitions that go live together, while the next ones are restored
_NAMED = 5  # partitions that a line of the log names
_HAND_OVER_S = 1.0
_LOOK_S = 5.0  # between two looks at whether the topics are still the same


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """The rebalance listener. Its callbacks return at once; restoring happens in a task for each assignment.

    aiokafka only logs what its callbacks raise: here such an error ends the worker, like that of any other task.
    """

    def __init__(
        self,
        parts: Parts,
        checkpointer: Checkpointer,
        patience: Patience,
        spawn: Spawn,
        catch_up: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """`spawn` starts a task whose error ends the worker; `catch_up` takes the group's model if it has another."""
        self._parts = parts
        self._checkpointer = checkpointer
        self._patience = patience
        self._spawn = spawn
        self._catch_up = catch_up
        self._restoring = Restoring(parts, self.adopt)
        self._taking: dict[TopicPartition, asyncio.Task[None]] = {}
        self._leaving: list[Live] = []
        self._topics: dict[str, Topic] = {}  # as they were when a partition of them was taken
        self._fenced: set[TopicPartition] = set()  # whose group must be asked before they are taken again
        self._elsewhere: set[TopicPartition] = set()  # which the group gave away, though we have not heard
        self._problem = ""
        self._looking: asyncio.Task[None] | None = None
        settings = parts.settings.kafka
        # No heartbeat is sent during a revocation, so it must end well before the session does.
        self._patience_s = min(settings.rebalance_timeout_s / 2, settings.session_timeout_s * 0.8)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing may be delivered before the seek, so pausing comes first."""
        self._parts.consumer.pause(*assigned)
        assigned = sorted(assigned)
        log.info("assigned: %s", _named(assigned))
        self._elsewhere.clear()  # now we have heard
        with self._fatal():
            self._looking = self._looking or self._spawn(self._look())
            if assigned:
                self._again(assigned, self._take(assigned))
            else:
                self._report()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Stop intake, then flush what was scored within the time there is, or leave it to the replay."""
        revoked = set(revoked)
        with self._fatal():
            self._fenced -= revoked
            self._give_up(revoked)
            leaving = [live for tp in revoked if (live := self._parts.live.pop(tp, None)) is not None]
            self._leaving += leaving
            try:
                async with asyncio.timeout(self._patience_s):
                    await own(self._checkpointer.checkpoint(lambda: leaving))
            except TimeoutError:
                log.warning(
                    "partitions were revoked before all outputs were acknowledged; their new owner replays them"
                )
            finally:
                await hand_over(self._parts.store, leaving)
                self._leaving = [live for live in self._leaving if live not in leaving]
                for live in leaving:
                    self._parts.release(live)

    def held(self) -> list[Live]:
        """The partitions whose rows are in the arena and may have changed."""
        return [*self._parts.live.values(), *self._leaving]

    def fenced(self, live: Live) -> None:
        """Another owner took the partition (rule R11): drop all of it and ask the group whose it is."""
        log.error("%s: fenced: another worker took the partition, or the store went back in time", live.id)
        self._parts.metrics.conflicts.inc()
        self._parts.release(live)
        self._fenced.add(live.tp)
        if live.tp in self._parts.consumer.assignment() and live.tp not in self._taking:
            self._parts.consumer.pause(live.tp)
            self._again([live.tp], self._take([live.tp]))

    def out_of_range(self, tp: TopicPartition) -> None:
        """Kafka has no record at the position (rule R16): take the partition anew, which compares and decides."""
        live = self._parts.live.pop(tp, None)
        if live is not None:
            self._parts.consumer.pause(tp)
            self._again([tp], self._take_after(live))

    def begin_anew(self) -> None:
        """Another model is served from now on: what is being restored was for the one before."""
        if tps := sorted(self._taking):
            self._again(tps, self._take(tps))

    async def adopt(self, live: Live) -> None:
        """Write the pending reload of a partition: every row dropped, the new identity, the same owner (rule R18)."""
        point, state = live.state.pending, live.state
        if point is None or point.identity is None:
            return  # lost meanwhile
        writes = state.writes(point, (), (), 1, state.identity.topic_id)
        outcome = await self._patience(
            lambda: self._parts.store.write(live.id, writes), lambda: state.owner == live.owner
        )
        if state.owner != live.owner:
            return
        if outcome is Outcome.FENCED:
            self.fenced(live)
            return
        state.confirmed(point)
        live.series, live.complete = 0, True

    def close(self) -> None:
        """Give up what is being restored."""
        for task in {*self._taking.values(), *([self._looking] if self._looking else [])}:
            task.cancel()

    # -- one task for each assignment

    def _again(self, tps: Collection[TopicPartition], work: Coroutine[Any, Any, None]) -> None:
        self._give_up(set(tps))
        self._taking |= dict.fromkeys(tps, self._spawn(work))
        self._report()

    def _give_up(self, tps: set[TopicPartition]) -> None:
        """End the tasks that take any of these; what else such a task takes is begun again."""
        self._elsewhere -= tps
        tasks = {self._taking[tp] for tp in tps & self._taking.keys()}
        others = sorted(tp for tp, task in self._taking.items() if task in tasks and tp not in tps)
        self._taking = {tp: task for tp, task in self._taking.items() if task not in tasks}
        for task in tasks:
            task.cancel()
        if others:
            self._taking |= dict.fromkeys(others, self._spawn(self._take(others)))
        self._report()

    def _report(self) -> None:
        says = []
        if self._taking:
            says.append(f"{_named(self._taking)}: being restored{self._problem}")
        if self._elsewhere:
            says.append(f"{_named(self._elsewhere)}: waiting for the group")
        self._parts.health.report("assignment", "; ".join(says) or None)

    async def _take_after(self, live: Live) -> None:
        """Flush what there is of a partition first."""
        self._leaving.append(live)
        try:
            await self._checkpointer.checkpoint(lambda: [live])
            await hand_over(self._parts.store, [live])
        finally:
            self._leaving.remove(live)
            self._parts.release(live)
        await self._take([live.tp])

    async def _take(self, tps: Sequence[TopicPartition]) -> None:
        """Own, restore, seek, resume; again with new owners each time the store or Kafka does not answer (rule R1)."""
        left, tries, said, began = list(tps), 0, "", time.monotonic()
        while left:
            try:
                failed = await self._attempt(await self._still_mine(left))
            except PASSING as error:
                failed = dict.fromkeys(left, error)
            for tp in set(left) - failed.keys():
                self._taking.pop(tp, None)
            left = sorted(failed)
            self._problem = f" ({failed[left[0]]}; it is tried again)" if left else ""
            self._report()
            if left:
                level = logging.INFO if self._problem == said else logging.WARNING
                said = self._problem
                log.log(level, "%s: being restored%s", _named(left), said)
                await asyncio.sleep(min(_MOST_RETRY_S, RETRY_S * 2**tries) * random.uniform(0.5, 1))
                tries += 1
        log.info("%s: taken in %.2f s", _named(tps), time.monotonic() - began)

    async def _still_mine(self, tps: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Without those that were fenced and that the group gave to somebody else (rule R11).

        Only a current member may commit, so committing what is committed asks the group.
        """
        consumer, kafka = self._parts.consumer, self._parts.settings.kafka
        doubted = [tp for tp in tps if tp in self._fenced]
        try:
            if doubted:
                commits = await self._parts.cluster.commits(kafka.group_id, doubted)
                await self._parts.commits.commit(consumer, commits)
                if len(commits) < len(doubted):
                    await asyncio.sleep(kafka.session_timeout_s)  # a lost member hears of it by then
        except NOT_A_MEMBER as error:
            log.info("%s: no longer this worker's: %s", _named(doubted), error)
            self._elsewhere |= set(doubted) & consumer.assignment()
        self._fenced -= set(doubted)
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
        for name, topic in topics.items():
            self._topics.setdefault(name, topic)
        mine = [tp for tp in tps if tp.topic in topics]

        async def claim(tp: TopicPartition) -> Claimed:
            return await self._restoring.claim(tp, topics[tp.topic])

        claimed = await _bounded(mine, claim)
        if not mine:
            return failed
        # Rule R10: what is asked before every fence stands may be old.
        commits = await parts.cluster.commits(group, mine)
        starts, ends = await parts.consumer.beginning_offsets(mine), await parts.consumer.end_offsets(mine)
        chosen = await parts.store.chosen(group, files=False)
        if chosen and chosen.digest != parts.engine.bundle.digest:
            await asyncio.shield(self._spawn(self._catch_up()))  # which begins all of this anew
            raise FencedError(f"the group serves {chosen.name} by now")

        restored: list[Live] = []

        async def restore(one: Claimed) -> None:
            one.state.replaced = chosen.replaced.keys() if chosen else frozenset()
            try:
                opening = one.state.open(one.owner, one.assigned, commits.get(one.tp), starts[one.tp], ends[one.tp])
                restored.append(await self._restoring.restore(one, opening, ends[one.tp]))
            except PASSING as error:
                failed[one.tp] = error
                if isinstance(error, FencedError):
                    self._fenced.add(one.tp)

        try:
            for at in range(0, len(claimed), _TOGETHER):
                await _bounded(claimed[at : at + _TOGETHER], restore)
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
        while beginning := [live for live in lives if _held(live) and not live.state.settled]:
            await self._checkpointer.checkpoint(lambda: beginning)
            if any(_held(live) and not live.state.settled for live in beginning):
                await asyncio.sleep(RETRY_S)
        outcomes = await _bounded(lives, lambda live: parts.store.mark(live.id, live.owner, str(live.guard)))
        for live, outcome in zip(lives, outcomes, strict=True):
            if outcome is Outcome.FENCED and _held(live):
                self.fenced(live)
            elif _held(live) and live.tp in parts.consumer.assignment():
                parts.consumer.seek(live.tp, live.state.position)
                parts.live[live.tp] = live
                parts.consumer.resume(live.tp)
            else:
                parts.release(live)
        return {
            live.tp: FencedError(f"{live.id}: fenced while it was restored")
            for live in lives
            if live.tp in self._fenced
        }

    # -- the topics themselves

    async def _look(self) -> None:
        """Whether the topics are those that were taken, also while no partition of them can be read (rule R17).

        A topic that is gone is waited for. Raises `IdentityError` for one that was made again or got more partitions:
        the client looks at those every five minutes only, and nobody reads the new ones meanwhile.
        """
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                there = await self._parts.cluster.topics(self._parts.settings.topics.readings)
            except (BrokerError, KafkaError):
                continue  # which others say, and wait for
            gone = sorted(self._parts.settings.topics.readings - there.keys())
            self._parts.health.report("topics", f"there is no topic {', '.join(gone)} any more" if gone else None)
            for name, topic in there.items():
                was = self._topics.setdefault(name, topic)
                if (was.id, was.partitions) != (topic.id, topic.partitions):
                    settings = self._parts.settings
                    at = PartitionId(settings.kafka.group_id, name, 0)
                    identity = self._parts.identity(Identity(was.id, was.partitions, settings.state.buckets, "", ""))
                    compare(at, identity, replace(identity, topic_id=topic.id, partitions=topic.partitions))

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        """What is raised in here ends the worker."""
        try:
            yield
        except Exception as error:
            self._spawn(_raise(error))


async def hand_over(store: Store, leaving: Collection[Live]) -> None:
    """Tell the store that these partitions' owner ends as it should (rule R21). Quick, or not at all."""

    async def tell(live: Live) -> None:
        if _held(live):
            await store.mark(live.id, live.owner, live.guard.left(live.state.stored or 0))

    try:
        async with asyncio.timeout(_HAND_OVER_S):
            await _bounded(leaving, tell)
    except (StoreError, TimeoutError) as error:
        log.info("the store was not told that partitions were handed over: %s", error)


def _held(live: Live) -> bool:
    return live.state.owner == live.owner


async def _raise(error: Exception) -> None:
    raise error


async def _bounded(items: Iterable[S], work: Callable[[S], Awaitable[T]]) -> list[T]:
    """`work` for each, some at a time; its results in order. The first error ends all of it."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(item: S) -> T:
        async with turns:
            return await work(item)

    running = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*running))
    except BaseException:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        raise


def _named(tps: Collection[TopicPartition]) -> str:
    """Some partitions for people: their names, or how many there are."""
    names = [f"{tp.topic}-{tp.partition}" for tp in sorted(tps)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more or "nothing"
