"""The life of a worker, in this process, over a Kafka that is played: sessions, assignments, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, ProducerFenced, UnknownMemberIdError

from stream_gru.errors import (
    BrokerError,
    BrokerRefusedError,
    CredentialsError,
    IdentityError,
    SettingsError,
    StoreUnavailableError,
)
from stream_gru.kafka.pulse import SILENT_S, Pulse
from stream_gru.models import bundle
from stream_gru.protocol.guard import Guard, handed_over
from stream_gru.settings import Kafka
from stream_gru.stores.memory import MemoryStore
from stream_gru.worker import worker as module
from tests.support.one_worker import TOPIC, Play, World, player

CLIENTS = {"cluster", "publisher", "commits", "consumer"}
FIRST, SECOND = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    return player(monkeypatch)


@pytest.fixture
def world() -> World:
    made = World()
    made.add(30, 0)
    made.add(20, 1)
    return made


async def test_a_worker_scores_stores_commits_and_hands_over(world: World, play: Play) -> None:
    async with play(world) as stage:
        await stage.scored()
        await stage.until(lambda: stage.worker.health.ready)
        ids = [f"{TOPIC}-{tp.partition}-{offset}" for tp, end in world.everything.items() for offset in range(end)]
        assert sorted(world.ids("forecasts")) == sorted(ids)
        await stage.stop()
        assert set(world.closed) == CLIENTS
        assert stage.worker.control is None
        left = await stage.left()
        assert (left.offset, left.rows, left.reading) == (30, 2, "")


async def test_what_was_scored_last_is_stored_before_it_ends(world: World, play: Play) -> None:
    async with play(world, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(lambda: len(world.ids("forecasts")) == 50)
        assert world.committed != world.everything
        await stage.stop()
        assert world.committed == world.everything
        assert (await stage.left()).offset == 30


async def test_the_batch_in_hand_is_stored_before_it_ends(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hand, probed, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    probes = MemoryStore.probes

    async def mark_soon(*_: Any) -> None:
        in_hand.set()
        await go_on.wait()

    async def noting(self: MemoryStore, *args: Any) -> Any:
        probed.set()
        return await probes(self, *args)

    monkeypatch.setattr(MemoryStore, "mark_soon", mark_soon)
    async with play(world, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(in_hand.is_set)
        monkeypatch.setattr(MemoryStore, "probes", noting)
        await stage.worker.stop()
        await stage.until(probed.is_set)  # the last checkpoint of those at intervals; there was nothing to write
        go_on.set()
        await stage.ended()
        scored = {
            tp: end for tp, end in world.everything.items() if f"{tp.topic}-{tp.partition}-0" in world.ids("forecasts")
        }
        assert scored
        assert scored.items() <= world.committed.items()


@pytest.mark.parametrize(
    "trouble",
    [
        KafkaError("gone"),
        asyncio.CancelledError(),
        TimeoutError(),
        BrokerError("away"),
        CredentialsError("no such file"),
    ],
)
async def test_a_session_that_breaks_is_followed_by_another(world: World, play: Play, trouble: BaseException) -> None:
    async with play(world) as stage:
        await stage.scored()
        world.polls.append(trouble)
        world.add(10)
        await stage.until(lambda: world.sessions == 2)
        assert set(world.closed) == CLIENTS
        await stage.scored()
        assert len(set(world.ids("forecasts"))) == 60
        assert len(stage.worker._parts.engine.arena) == 4, "no rows of the session before"  # type: ignore[union-attr]
        await stage.until(lambda: stage.worker.health.ready)
        await stage.stop()


async def test_a_cancellation_that_leaks_while_it_connects_is_not_its_end(world: World, play: Play) -> None:
    world.connects.append(asyncio.CancelledError())
    async with play(world) as stage:
        await stage.scored()
        assert set(world.closed) == CLIENTS
        await stage.stop()


async def test_a_session_that_breaks_while_it_scores_blames_no_record(world: World, play: Play) -> None:
    readings: list[str] = []
    assign = MemoryStore.assign

    async with play(world) as stage:
        await stage.scored()
        world.acknowledges = False
        world.add(10)
        await stage.until(lambda: any(live.guard.trying for live in stage.lives))
        world.polls.append(KafkaError("gone"))
        with pytest.MonkeyPatch.context() as patch:

            async def noting(self: MemoryStore, *args: Any) -> Any:
                assigned = await assign(self, *args)
                readings.append(assigned.reading)
                return assigned

            patch.setattr(MemoryStore, "assign", noting)
            world.acknowledges = True
            await stage.until(lambda: len(readings) >= 2)
        assert all(map(handed_over, readings))
        await stage.scored()


@pytest.mark.parametrize("fatal", [OutOfOrderSequenceNumber(), ProducerFenced()])
async def test_what_no_new_connection_mends_ends_it(world: World, play: Play, fatal: KafkaError) -> None:
    world.lost = fatal
    async with play(world) as stage:
        with pytest.raises(type(fatal)):
            await stage.ended()
        assert world.sessions == 1
        assert set(world.closed) == CLIENTS


async def test_an_error_of_its_own_ends_it_and_leaves_word_of_what_it_scored(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with play(world) as stage:
        await stage.scored()

        def fail(*_: Any) -> None:
            raise ValueError("a bug")

        monkeypatch.setattr(stage.worker._parts.engine, "step", fail)  # type: ignore[union-attr] # it is connected
        world.add(1)
        with pytest.raises(ValueError, match="a bug"):
            await stage.ended()
        reading = (await stage.left()).reading
        assert not handed_over(reading)
        assert '"first":30,"end":31' in reading


async def test_each_attempt_waits_longer_until_one_held(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def pause(_: Any, seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(module.Worker, "_pause", pause)
    world.connects += [KafkaError("away")] * 5
    async with play(world) as stage:
        await stage.scored()
        assert max(waits) > 5 * waits[0], "0.1, 0.2, 0.4, 0.8, 1.6 s and jitter"
        assert set(world.closed) == CLIENTS, "what was connected of a session that did not come about is closed, too"


async def test_a_store_that_is_away_at_first_is_waited_for(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, opened = [StoreUnavailableError("Redis does not answer")] * 3, MemoryStore.open

    async def open_(self: MemoryStore) -> list[str]:
        if away:
            raise away.pop()
        return await opened(self)

    said: list[str | None] = []
    monkeypatch.setattr(MemoryStore, "open", open_)
    async with play(world) as stage:
        report = stage.worker.health.report

        def noting(part: str, problem: str | None = None) -> None:
            said.extend([problem] if part == "store" else [])
            report(part, problem)

        monkeypatch.setattr(stage.worker.health, "report", noting)
        await stage.scored()
        assert said[:3] == ["Redis does not answer"] * 3
        assert stage.parts["store"] is None


async def test_a_refusal_ends_it_unless_it_may_pass(world: World, play: Play, tmp_path: Any) -> None:
    refusal = BrokerRefusedError("Kafka refuses the password")
    world.connects.append(KafkaError("closed"))
    world.cause = refusal
    async with play(world) as stage:
        with pytest.raises(BrokerRefusedError):
            await stage.ended()

    (tmp_path / "password").write_text("secret")
    sasl = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "me",
        "sasl_password_file": tmp_path / "password",
    }
    world.connects.append(KafkaError("closed"))
    async with play(world, kafka=sasl) as stage:
        await stage.scored()  # the file may be written anew

    async with play(world) as stage:
        await stage.until(lambda: stage.worker.health.ready)
        world.polls.append(KafkaError("closed"))
        world.connects += [KafkaError("closed")] * 2
        sessions = world.sessions
        await stage.until(lambda: "password" in (stage.parts["kafka"] or ""))
        assert stage.parts["assignment"] == "not connected"
        await stage.until(lambda: world.sessions == sessions + 1)
        world.cause = None
        await stage.stop()


async def test_two_processes_of_one_name_are_told(world: World, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    pulses: list[Pulse] = []

    def pulse(kafka: Kafka) -> Pulse:
        pulses.append(Pulse(kafka))
        return pulses[-1]

    monkeypatch.setattr(module, "Pulse", pulse)
    async with play(world, kafka={"group_instance_id": "pump-7"}) as stage:
        await stage.scored()
        pulses[0].replaced.set()
        with pytest.raises(SettingsError, match=r"kafka\.group_instance_id pump-7"):
            await stage.ended()


async def test_a_topic_that_is_gone_is_waited_for_and_one_made_again_ends_it(world: World, play: Play) -> None:
    async with play(world) as stage:
        await stage.scored()
        world.there = False
        await stage.until(lambda: f"no topic {TOPIC}" in (stage.parts.get("topics") or ""))
        assert not stage.worker.health.ready
        world.there = True
        await stage.until(lambda: stage.worker.health.ready)
        world.there = False
        await stage.until(lambda: bool(stage.parts["topics"]))
        world.topic_id, world.there = "T-2", True
        with pytest.raises(IdentityError, match="deleted and made again"):
            await stage.ended()


async def test_what_a_callback_of_the_consumer_raises_ends_it(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with play(world, state={"checkpoint_interval_s": 3600}) as stage:  # no other task meets it
        await stage.until(lambda: len(world.ids("forecasts")) == 50)

        async def fail(*_: Any) -> None:
            raise ValueError("a bug")

        monkeypatch.setattr("stream_gru.worker.checkpoint.Checkpointer.checkpoint", fail)
        consumer = world.consumer
        assert consumer is not None
        await consumer.take(FIRST)
        with pytest.raises(ValueError, match="a bug"):
            await stage.ended()


async def test_outputs_that_are_not_acknowledged_are_no_readiness(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with play(world) as stage:
        await stage.scored()
        publisher = world.publisher
        assert publisher is not None
        assert publisher.on_stuck is not None
        publisher.on_stuck("topic dead-letters refuses a record of 9 bytes")
        assert not stage.worker.health.ready
        assert stage.parts["outputs"] == "topic dead-letters refuses a record of 9 bytes"
        world.polls.append(KafkaError("gone"))
        await stage.until(lambda: world.sessions == 2 and stage.worker.health.ready)
        publisher = world.publisher
        assert publisher is not None
        publisher.oldest_unacknowledged_s = SILENT_S + 1
        assert "has not acknowledged outputs for 9 s" in (stage.worker._unsent(publisher) or "")  # type: ignore[arg-type]
        publisher.oldest_unacknowledged_s = SILENT_S - 1
        assert stage.worker._unsent(publisher) is None  # type: ignore[arg-type]


async def test_what_is_taken_away_is_stored_handed_over_and_dropped(world: World, play: Play) -> None:
    async with play(world, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(lambda: len(world.ids("forecasts")) == 50)
        engine, consumer = stage.worker._parts.engine, world.consumer  # type: ignore[union-attr] # it is connected
        assert consumer is not None
        assert len(engine.arena) == 4
        await consumer.take(FIRST)
        assert world.committed[FIRST] == 30
        assert SECOND not in world.committed
        assert len(engine.arena) == 2
        left = await stage.left(0)
        assert (left.offset, left.reading) == (30, "")
        world.add(5, 0)
        await consumer.give([FIRST])
        await stage.until(lambda: len(world.ids("forecasts")) == 55)


async def test_what_is_taken_away_while_it_is_restored_is_given_up(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers, assign = asyncio.Event(), asyncio.Event(), MemoryStore.assign

    async def slow(self: MemoryStore, *args: Any) -> Any:
        asked.set()
        await answers.wait()
        return await assign(self, *args)

    monkeypatch.setattr(MemoryStore, "assign", slow)
    async with play(world) as stage:
        await stage.until(asked.is_set)
        consumer = world.consumer
        assert consumer is not None
        await consumer.take(FIRST)
        assert stage.parts["assignment"] == f"{TOPIC}-1: being restored"
        answers.set()
        await stage.until(lambda: stage.worker.health.ready)
        assert [live.tp for live in stage.lives] == [SECOND]


async def test_a_partition_that_another_took_is_dropped_and_the_group_is_asked(world: World, play: Play) -> None:
    async with play(world) as stage:
        await stage.scored()
        first = next(live for live in stage.lives if live.tp == FIRST)
        await stage.left(0)  # a fence
        await stage.until(lambda: first not in stage.lives)
        await stage.until(lambda: len(stage.lives) == 2)
        world.add(10)
        await stage.scored()
        assert len(world.ids("forecasts")) == 60, "nothing twice"

        world.refused.append(UnknownMemberIdError())
        await stage.left(0)
        await stage.until(lambda: "waiting for the group" in (stage.parts["assignment"] or ""))
        assert [live.tp for live in stage.lives] == [SECOND]
        consumer = world.consumer
        assert consumer is not None
        await consumer.take(FIRST)
        await consumer.give([FIRST])
        await stage.until(lambda: stage.worker.health.ready)


async def test_offsets_without_records_are_passed_over(world: World, play: Play) -> None:
    async with play(world) as stage:
        await stage.scored()
        world.holes[FIRST] = 2
        await stage.scored()
        assert world.committed[FIRST] == 32


async def test_a_position_that_nobody_sets_is_not_waited_for(world: World, play: Play) -> None:
    async with play(world) as stage:
        await stage.scored()
        world.unset.add(FIRST)
        await stage.until(lambda: world.asked >= 2)
        world.add(20, 1)
        await stage.scored()


async def test_word_is_left_of_what_is_scored_and_suspects_are_read_alone(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "suspects"
    async with play(world, name=name) as stage:
        await stage.scored()
        await stage.stop()
        guard = Guard().tries(30, 39)
        left = await stage.left()
        await stage.store.mark(stage.at(0), "nobody", str(guard))  # refused: not the owner
        assert left.reading == ""
        owner = "dead"
        identity = left.identity
        assert identity is not None
        await stage.store.assign(stage.at(0), owner, identity)
        await stage.store.mark(stage.at(0), owner, str(guard))
    world.add(10)
    batches: list[int] = []
    async with play(world, name=name) as stage:
        observe = stage.worker.metrics.batch.observe

        def noting(size: int) -> None:
            batches.append(size)
            observe(size)

        monkeypatch.setattr(stage.worker.metrics.batch, "observe", noting)
        await stage.scored()
        assert batches == [1] * 10
        await stage.stop()
        assert (await stage.left()).reading == ""


async def test_suspects_of_one_partition_are_acquitted_before_those_of_another_are_tried(
    world: World, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash at the second one's would be blamed on the last record of the first, which no checkpoint covers yet."""
    name = "two-suspects"
    async with play(world, name=name) as stage:
        await stage.scored()
        await stage.stop()
        for partition, first in ((0, 30), (1, 20)):
            identity = (await stage.left(partition)).identity
            assert identity is not None
            await stage.store.assign(stage.at(partition), "dead", identity)
            await stage.store.mark(stage.at(partition), "dead", str(Guard().tries(first, first + 4)))
    world.add(5, 0)
    world.add(5, 1)
    trying: list[tuple[int, int | None]] = []
    mark = MemoryStore.mark_soon

    async def noting(self: MemoryStore, words: Any) -> None:
        for partition, _, word in words:
            tried = msgspec.json.decode(word, type=Guard).trying
            trying.append((partition.partition, None if tried is None else tried.first))
        await mark(self, words)

    monkeypatch.setattr(MemoryStore, "mark_soon", noting)
    async with play(world, name=name, state={"checkpoint_interval_s": 3600}) as stage:
        await stage.until(lambda: len(set(world.ids("forecasts"))) == 60)
    assert trying[: trying.index((1, 20))] == [*((0, offset) for offset in range(30, 35)), (0, None)]


async def test_a_reload_is_the_groups_and_begins_afresh(world: World, play: Play) -> None:
    async with play(world) as stage:
        await stage.scored()
        control = stage.worker.control
        assert control is not None
        served = stage.lives[0].state.identity.model
        told = await control.reload(bundle.DEFAULT)
        assert told["model"].startswith("zero-shot@")
        chosen = await stage.store.chosen(stage.settings.kafka.group_id, files=True)
        assert chosen is not None
        assert served in chosen.replaced
        assert bundle.parse(dict(chosen.files), "x").digest == chosen.digest == stage.lives[0].state.identity.model
        assert len(stage.worker._parts.engine.arena) == 0  # type: ignore[union-attr] # it is connected
        world.add(10)
        await stage.scored()
        left = await stage.left()
        assert left.identity.model == chosen.digest
        assert left.rows == 2
