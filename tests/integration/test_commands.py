"""Commands to two workers over a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaAdminClient
from typer.testing import CliRunner

from stream_gru.cli import app
from stream_gru.errors import BrokerError, StoreError
from stream_gru.kafka import aiokafka_options, kafka_python_options
from stream_gru.metrics import Metrics
from stream_gru.settings import Settings
from stream_gru.worker import commands
from stream_gru.worker.commands import Command, Reply


class Target:
    """A data plane that owns one series."""

    def __init__(self, owns: bytes) -> None:
        self.owns = owns
        self.calls: list[tuple[Any, ...]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.was_reset = asyncio.Event()

    async def reset(self, series: bytes, topic: str | None = None, partition: int | None = None) -> list[str]:
        self.calls.append(("reset", series, topic, partition))
        self.was_reset.set()
        await self.hold.wait()
        if series == b"broken":
            raise ZeroDivisionError("of no use")
        return ["readings-3"] if series == self.owns else []

    async def reload(self, bundle: Path | None) -> dict[str, Any]:
        self.calls.append(("reload", bundle))
        if bundle == Path("/nowhere"):
            raise StoreError("there is no bundle at /nowhere")
        return {"model": "new"}

    async def report(self) -> dict[str, Any]:
        return {"owns": self.owns.decode()}


class Two:
    """Two workers in this process, told apart by their names."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.targets: list[Target | None] = [Target(b"pump"), Target(b"fan")]
        self.metrics = [Metrics(), Metrics()]
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, command: Command, expect: int = 2, timeout_s: float = 20.0) -> list[Reply]:
        return await commands.send(self.settings, command, timeout_s, expect)

    async def write(self, value: bytes | None) -> None:
        async with AIOKafkaProducer(**aiokafka_options(self.settings.kafka)) as producer:
            await producer.send_and_wait(self.settings.topics.commands, value, b"key")

    def called(self) -> list[tuple[Any, ...]]:
        return [call for target in self.targets if target for call in target.calls]


@pytest.fixture
async def two(settings: Settings) -> AsyncIterator[Two]:
    made = Two(settings)
    for n in range(2):
        listening = commands.listen(settings, partial(made.targets.__getitem__, n), made.metrics[n], f"worker-{n}")
        made.tasks.append(asyncio.create_task(listening))
    for _ in range(40):  # a worker that is still on its way does not hear
        if len(await made.ask(Command(command="report"), timeout_s=1)) == 2:
            break
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


def statuses(replies: list[Reply]) -> list[str]:
    return [reply.status for reply in replies]


async def test_the_owner_obeys_and_the_other_one_says_that_it_is_not(two: Two) -> None:
    replies = await two.ask(Command(command="reset", series="pump", topic="readings", partition=3))
    assert statuses(replies) == ["ok", "ignored"]
    assert [reply.detail for reply in replies] == [["readings-3"], []]
    assert two.called() == [("reset", b"pump", "readings", 3)] * 2
    assert len({reply.worker for reply in replies}) == 2


async def test_everyone_reloads_and_reports(two: Two) -> None:
    replies = await two.ask(Command(command="reload", bundle="/models/7"))
    assert statuses(replies) == ["ok", "ok"]
    assert two.called() == [("reload", Path("/models/7"))] * 2
    replies = await two.ask(Command(command="report"))
    assert [reply.detail for reply in replies] == [{"owns": "pump"}, {"owns": "fan"}]


@pytest.mark.parametrize(
    ("command", "detail"),
    [
        (Command(command="reload", bundle="/nowhere"), "there is no bundle at /nowhere"),
        (Command(command="reset", series="broken"), "ZeroDivisionError: of no use"),
    ],
)
async def test_a_command_that_fails_is_answered_and_ends_nothing(two: Two, command: Command, detail: str) -> None:
    replies = await two.ask(command)
    assert [(reply.status, reply.detail) for reply in replies] == [("error", detail)] * 2
    assert statuses(await two.ask(Command(command="report"))) == ["ok", "ok"]


@pytest.mark.parametrize(
    "value", [None, b"", b"rubbish", b"[]", b'{"command": "report"}x', b"{" * 50_000, b'{"id": 7}']
)
async def test_what_is_no_command_is_left_aside(two: Two, value: bytes | None) -> None:
    await two.write(value)
    assert statuses(await two.ask(Command(command="report"))) == ["ok", "ok"]
    for metrics in two.metrics:
        label = {"topic": two.settings.topics.commands}
        assert metrics.registry.get_sample_value("stream_gru_control_unreadable_total", label) == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"command": "destroy"}, "destroy"),
        ({}, "command"),
        ({"command": "reset"}, "reset needs a series"),
        ({"command": "report", "force": True}, "force"),
        ({"command": "reset", "series": 7}, "series"),
    ],
)
async def test_a_malformed_command_with_an_id_gets_an_error(two: Two, wrong: dict[str, Any], says: str) -> None:
    options = aiokafka_options(two.settings.kafka)
    async with AIOKafkaConsumer(
        two.settings.topics.command_replies, **options, auto_offset_reset="earliest"
    ) as consumer:
        await two.write(json.dumps({"id": "my-own", **wrong}).encode())
        replies = []
        async with asyncio.timeout(20):
            async for record in consumer:
                if record.key == b"my-own":
                    replies.append(json.loads(record.value))
                    if len(replies) == 2:
                        break
    assert [reply["status"] for reply in replies] == ["error", "error"]
    assert all(says in reply["detail"] for reply in replies)
    assert two.called() == []


async def test_a_command_that_comes_twice_is_obeyed_once(two: Two) -> None:
    command = b'{"id": "once", "command": "reset", "series": "pump"}'
    await two.write(command)
    await two.write(command)
    await two.ask(Command(command="report"))
    await two.ask(Command(command="reset", series="other"))
    assert two.called().count(("reset", b"pump", None, None)) == 2, "once for each worker"


async def test_a_report_does_not_wait_for_a_reset(two: Two) -> None:
    assert two.targets[0] is not None
    two.targets[0].hold.clear()
    resetting = asyncio.create_task(two.ask(Command(command="reset", series="pump")))
    assert statuses(await two.ask(Command(command="report"))) == ["ok", "ok"]
    assert not resetting.done()
    two.targets[0].hold.set()
    assert statuses(await resetting) == ["ok", "ignored"]


async def test_a_worker_that_is_not_connected_says_so(two: Two) -> None:
    two.targets[1] = None
    replies = await two.ask(Command(command="report"))
    assert statuses(replies) == ["ok", "error"]
    assert replies[1].detail == "this worker is not connected yet"


async def test_partitions_that_are_added_are_read_from_their_beginning(
    two: Two, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in two.tasks:
        task.cancel()
    monkeypatch.setattr(commands, "_LOOK_FOR_PARTITIONS_S", 0.2)
    target = Target(b"pump")
    listening = asyncio.create_task(commands.listen(settings, lambda: target, Metrics()))
    while not await two.ask(Command(command="report"), expect=1, timeout_s=1):
        pass
    with closing(KafkaAdminClient(**kafka_python_options(settings.kafka))) as admin:
        admin.create_partitions({settings.topics.commands: 3})
    async with AIOKafkaProducer(**aiokafka_options(settings.kafka)) as producer:
        command = b'{"id": "there", "command": "reset", "series": "pump"}'
        async with asyncio.timeout(20):
            while 2 not in await producer.partitions_for(settings.topics.commands):
                await producer.client.force_metadata_update()
        await producer.send_and_wait(settings.topics.commands, command, b"key", partition=2)
    async with asyncio.timeout(20):
        await target.was_reset.wait()
    assert target.calls == [("reset", b"pump", None, None)]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_nobody_there(settings: Settings) -> None:
    assert await commands.send(settings, Command(command="report"), timeout_s=1) == []


async def test_a_missing_topic_is_named(settings: Settings) -> None:
    missing = settings.topics.model_copy(update={"commands": "there-is-no-such-topic"})
    with pytest.raises(BrokerError, match="no topic there-is-no-such-topic"):
        await commands.send(settings.model_copy(update={"topics": missing}), Command(command="report"))


def test_the_command_line_prints_replies(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    replies: list[Reply] = []
    asked: list[tuple[Command, float, int | None]] = []

    async def send(_: Settings, command: Command, timeout_s: float, expect: int | None) -> list[Reply]:
        asked.append((command, timeout_s, expect))
        return replies

    monkeypatch.setattr(commands, "send", send)
    run = CliRunner().invoke
    nobody = run(app, ["command", "report"])
    assert nobody.exit_code == 1
    assert "no worker answered within 10 s" in nobody.output

    replies.append(Reply("1", "host-1", "ok", ["readings-3"]))
    replies.append(Reply("1", "host-2", "ignored", []))
    told = run(app, ["command", "reset", "pump", "--partition", "3", "--timeout", "2", "--expect", "2"])
    assert told.exit_code == 0
    assert "readings-3" in told.output
    assert "not known here" in told.output
    assert (asked[-1][0].series, asked[-1][0].partition, *asked[-1][1:]) == ("pump", 3, 2.0, 2)

    replies.append(Reply("1", "host-3", "error", "no such bundle [red]"))
    failed = run(app, ["command", "reload", "/models/7", "--json"])
    assert failed.exit_code == 1
    assert [reply["status"] for reply in json.loads(failed.stdout)] == ["ok", "ignored", "error"]
    assert asked[-1][0].bundle == "/models/7"
    assert "no such bundle [red]" in run(app, ["command", "reload"]).output


async def test_as_many_replies_as_the_group_has_members(settings: Settings) -> None:
    """Without `expect` the client stops waiting when every worker has answered."""
    running = asyncio.create_task(commands.listen(settings, lambda: Target(b"pump"), Metrics()))
    member = AIOKafkaConsumer(
        *settings.topics.readings, **aiokafka_options(settings.kafka), group_id=settings.kafka.group_id
    )
    async with member:
        async with asyncio.timeout(30):
            while not await commands.send(settings, Command(command="report"), timeout_s=1):
                pass
            assert len(await commands.send(settings, Command(command="report"), timeout_s=60)) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
