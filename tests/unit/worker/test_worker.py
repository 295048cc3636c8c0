"""The life of a worker, in this process, over a Kafka that is played: sessions, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, ProducerFenced

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
from stream_gru.protocol.guard import handed_over
from stream_gru.settings import Kafka
from stream_gru.stores.memory import MemoryStore
from stream_gru.worker import session
from stream_gru.worker import worker as module
from tests.support.one_worker import CLIENTS, FIRST, TOPIC, Play, World


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
        assert "has not acknowledged outputs for 9 s" in (session.unsent(publisher) or "")  # type: ignore[arg-type]
        publisher.oldest_unacknowledged_s = SILENT_S - 1
        assert session.unsent(publisher) is None  # type: ignore[arg-type]


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
