"""Commands to running workers: reset a series, reload the model, report.

Which worker owns a series is known to the workers alone, so each of them reads the whole commands topic, without a
group, from its end on, does what concerns it, and says so on the topic of replies under the command's id.

Who may write to the commands topic may change what workers do: keep that to operators (ACLs).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream_gru import kafka
from stream_gru.errors import BrokerError, StreamGruError
from stream_gru.kafka import rights
from stream_gru.kafka.cluster import Cluster, KafkaTopic
from stream_gru.kafka.polite import polite
from stream_gru.metrics import Metrics
from stream_gru.process.tasks import own, put_away
from stream_gru.settings import Settings

log = logging.getLogger(__name__)

_RETRY_S = 5.0  # until it connects again: commands are rare, and the data plane says that Kafka is away
_POLL_MS = 500  # for a command to come: how late partitions are looked for, and not how late a command is obeyed
_LOOK_FOR_PARTITIONS_S = 30.0  # between two looks at whether the topic got more of them
_MAX_WAITING_COMMANDS = 100  # of one worker; more are a mistake, and answered at once
_MAX_ID_CHARACTERS = 100  # of a command; a UUID has 36
_REMEMBERED_IDS = 1000  # of commands, to know one that a producer sent twice


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A record of the commands topic."""

    command: Literal["reset", "reload", "report"]
    id: str = msgspec.field(default_factory=lambda: uuid4().hex)
    series: str | None = None  # reset: which one
    topic: str | None = None  # reset: only where its readings come from this topic,
    partition: int | None = None  # and from this partition
    bundle: str | None = None  # reload: folder on the worker's own disk; none: what its settings name

    def __post_init__(self) -> None:
        if not 1 <= len(self.id) <= _MAX_ID_CHARACTERS:
            raise ValueError(f"id must have 1 to {_MAX_ID_CHARACTERS} characters")
        if self.command == "reset" and self.series is None:
            raise ValueError("reset needs a series")


class Reply(msgspec.Struct, frozen=True):
    """A record of the topic of replies."""

    id: str  # of the command
    worker: str
    status: Literal["ok", "ignored", "error"]
    detail: Any  # reset: the places; reload and report: an object; an error: a sentence


class Target(Protocol):
    """What commands act on: the data plane of this process."""

    async def reset(self, series: bytes, topic: str | None = None, partition: int | None = None) -> list[str]:
        """Forget a series; the places (topic-partition) where it was known, none of them when it isn't ours."""
        ...

    async def reload(self, bundle: Path | None) -> dict[str, Any]:
        """Take another model."""
        ...

    async def report(self) -> dict[str, Any]:
        """What there is to know."""
        ...


class _Identified(msgspec.Struct):
    """As much of a malformed command as it takes to answer it."""

    id: str


_decode_command = msgspec.json.Decoder(Command).decode
_decode_identified = msgspec.json.Decoder(_Identified).decode
_decode_reply = msgspec.json.Decoder(Reply).decode
_encode = msgspec.json.encode


async def listen(
    settings: Settings, target: Callable[[], Target | None], metrics: Metrics, worker: str | None = None
) -> None:
    """Obey commands until cancelled; no command ends it.

    `target` gives None while there is nothing to command; `worker` is what replies are signed with (host and process).
    """
    listener = _Listener(settings, target, metrics, worker or f"{socket.gethostname()}-{os.getpid()}")
    try:
        while True:
            try:
                await own(listener.run())
            except Exception as error:
                cause = await kafka.diagnose(settings.kafka) or kafka.explain(error, settings.kafka)
                log.warning("not listening to commands, trying on: %s", cause)
            await asyncio.sleep(_RETRY_S)
    finally:
        listener.close()


class _Listener:
    def __init__(self, settings: Settings, target: Callable[[], Target | None], metrics: Metrics, worker: str) -> None:
        self._settings = settings
        self._target = target
        self._metrics = metrics
        self._worker = worker
        self._next: dict[TopicPartition, int] = {}  # kept when the connection is lost
        self._handled: deque[str] = deque(maxlen=_REMEMBERED_IDS)
        self._waiting: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()  # resets and reloads one at a time; a report does not wait for them

    def close(self) -> None:
        """Drop what is still being done."""
        for task in self._waiting:
            task.cancel()

    async def run(self) -> None:
        """Connect and read until an error."""

        def options() -> dict[str, Any]:
            return kafka.aiokafka_options(self._settings.kafka)

        consumer = polite(AIOKafkaConsumer(**options(), enable_auto_commit=False, auto_offset_reset="latest"), options)
        producer = polite(AIOKafkaProducer(**options()), options)
        try:
            await consumer.start()
            await producer.start()
            looked = float("-inf")
            while True:
                if time.monotonic() - looked > _LOOK_FOR_PARTITIONS_S:
                    looked = time.monotonic()
                    await self._assign(consumer, set(await self._partitions()))
                for tp, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                    for record in records:
                        self._accept(record, producer)
                    self._next[tp] = records[-1].offset + 1
        finally:
            await put_away(consumer.stop(), producer.stop())

    async def _partitions(self) -> list[TopicPartition]:
        topic = self._settings.topics.commands
        async with Cluster(self._settings.kafka) as cluster:
            await cluster.require(rights.listener(self._settings))
            return _partitions(topic, await cluster.topics([topic]))

    async def _assign(self, consumer: AIOKafkaConsumer, tps: set[TopicPartition]) -> None:
        """Read every partition: from its end when we start, from its beginning when it is a new one."""
        if not tps - consumer.assignment():
            return
        first = not self._next
        consumer.assign(tps)
        for tp in tps:
            if tp in self._next:
                consumer.seek(tp, self._next[tp])
            else:
                await (consumer.seek_to_end(tp) if first else consumer.seek_to_beginning(tp))
        self._next = {tp: await consumer.position(tp) for tp in tps}

    def _accept(self, record: Any, producer: AIOKafkaProducer) -> None:
        parsed = self._parse(record)
        if parsed is None or parsed.id in self._handled:
            return
        self._handled.append(parsed.id)
        if len(self._waiting) >= _MAX_WAITING_COMMANDS:
            parsed = Reply(parsed.id, self._worker, "error", "too many commands are waiting")
        task = asyncio.create_task(self._answer(parsed, producer))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def _parse(self, record: Any) -> Command | Reply | None:
        """The command; or what to reply when it is malformed; or nothing when it can't even be replied to."""
        try:
            return _decode_command(record.value or b"")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            reason = str(error)
            kind = type(error).__name__
        self._metrics.unreadable.labels(record.topic).inc()
        log.warning("%s-%d-%d is not a command (%s)", record.topic, record.partition, record.offset, kind)
        try:
            id_ = _decode_identified(record.value or b"").id
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return Reply(id_[:_MAX_ID_CHARACTERS], self._worker, "error", f"not a command: {reason}")

    async def _answer(self, parsed: Command | Reply, producer: AIOKafkaProducer) -> None:
        name = "unreadable" if isinstance(parsed, Reply) else parsed.command
        reply = parsed if isinstance(parsed, Reply) else await self._obey(parsed)
        self._metrics.commands.labels(name, reply.status).inc()
        log.info("command %s: %s", name, reply.status)
        try:
            await producer.send_and_wait(
                self._settings.topics.command_replies, key=reply.id.encode(), value=_encode(reply)
            )
        except KafkaError as error:
            log.warning("the reply to a command could not be sent (%s: %s)", type(error).__name__, error)

    async def _obey(self, command: Command) -> Reply:
        target = self._target()
        if target is None:
            return Reply(command.id, self._worker, "error", "this worker is not connected yet")
        try:
            if command.command == "report":
                return Reply(command.id, self._worker, "ok", await target.report())
            async with self._changing:
                if command.command == "reload":
                    bundle = Path(command.bundle) if command.bundle else self._settings.model.bundle
                    return Reply(command.id, self._worker, "ok", await target.reload(bundle))
                series = (command.series or "").encode()
                places = await target.reset(series, command.topic, command.partition)
                return Reply(command.id, self._worker, "ok" if places else "ignored", places)
        except StreamGruError as error:
            return Reply(command.id, self._worker, "error", str(error))
        except Exception as error:
            log.exception("command %s failed", command.command)
            return Reply(command.id, self._worker, "error", f"{type(error).__name__}: {error}")


async def send(settings: Settings, command: Command, timeout_s: float = 10.0, expect: int | None = None) -> list[Reply]:
    """Send a command and collect replies until `expect` workers answered (default: as many as the group has) or
    `timeout_s` is over. Raises `BrokerError` when Kafka can't be used.
    """
    replies: dict[str, Reply] = {}
    topic = settings.topics.command_replies
    async with await Cluster.connect(settings.kafka) as cluster:
        await cluster.require(rights.commander(settings))
        tps = _partitions(topic, await cluster.topics([topic]))
        wanted = expect or await _members(cluster, settings.kafka.group_id)
    options = kafka.aiokafka_options(settings.kafka)
    with kafka.broker_errors(settings.kafka):
        async with (
            AIOKafkaConsumer(**options, enable_auto_commit=False, auto_offset_reset="latest") as consumer,
            AIOKafkaProducer(**options, enable_idempotence=True) as producer,
        ):
            consumer.assign(tps)
            await consumer.seek_to_end(*tps)
            await producer.send_and_wait(settings.topics.commands, key=command.id.encode(), value=_encode(command))
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while len(replies) < wanted:
                        reply = _reply((await consumer.getone()).value)
                        if reply is not None and reply.id == command.id:
                            replies[reply.worker] = reply
    return sorted(replies.values(), key=lambda reply: reply.worker)


def _partitions(topic: str, found: Mapping[str, KafkaTopic]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in range(found[topic].partitions)]


async def _members(cluster: Cluster, group: str) -> float:
    """How many workers score in this group; infinity when that is not known, or none does."""
    try:
        return len((await cluster.group(group))["members"]) or math.inf
    except BrokerError:  # not allowed to ask
        return math.inf


def _reply(value: bytes | None) -> Reply | None:
    try:
        return _decode_reply(value or b"")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None  # somebody else's
