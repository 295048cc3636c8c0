"""What Kafka itself says of topics, logs and the group: the facts that an assignment is checked against."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

from stream_gru.errors import BrokerError
from stream_gru.kafka import aiokafka_options, diagnose, explain, rights
from stream_gru.kafka.causes import CREATE, RIGHTS
from stream_gru.kafka.link import Link
from stream_gru.kafka.requests import NO_ID, DescribeGroup, DescribeTopics
from stream_gru.kafka.rights import Need
from stream_gru.protocol.partition import Commit, record_crc
from stream_gru.settings import Kafka, Settings

_NO_SUCH_TOPIC, _MAY_NOT_SEE_TOPIC = 3, 29


@dataclass(frozen=True, slots=True)
class KafkaTopic:
    """A topic as the broker describes it."""

    id: str  # "" where the broker has no topic ids
    partitions: int
    leaderless: tuple[int, ...] = ()


class Cluster:
    """Asks afresh each time, reconnects by itself, and answers or raises `BrokerError` within ten seconds."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._link = Link(settings)

    @classmethod
    async def connect(cls, settings: Kafka) -> Self:
        """Raises `BrokerError` with the cause when no broker answers."""
        problem = await diagnose(settings)
        if problem is not None:
            raise problem
        return cls(settings)

    async def topics(self, names: Iterable[str]) -> dict[str, KafkaTopic]:
        """The topics that exist, by name. Raises `BrokerError` also for one that we may not see."""
        found, hidden = await self.survey(names)
        if hidden:
            raise _error(list(hidden.values()))
        return found

    async def survey(self, names: Iterable[str]) -> tuple[dict[str, KafkaTopic], dict[str, str]]:
        """The topics that exist, and what keeps us from seeing others. One that is in neither does not exist."""
        found, hidden = {}, {}
        for topic in await self._describe(names):
            name, code = topic["name"], topic["error_code"]
            if not code:
                found[name] = _topic(topic)
            elif code != _NO_SUCH_TOPIC:
                hidden[name] = self._problem(Need("topic", name, ("DESCRIBE",)), code)
        return found, hidden

    async def problems(self, needs: Sequence[Need]) -> list[str]:
        """What is missing of topics and rights, a line each."""
        wanted: dict[str, Need] = {need.name: need for need in needs if need.resource == "topic"}
        lines = []
        for topic in await self._describe(wanted):
            need = wanted[topic["name"]]
            if topic["error_code"]:
                lines.append(self._problem(need, topic["error_code"]))
            elif operations := rights.lacking(topic["authorized_operations"], need.operations):
                lines.append(rights.denied(self._settings, need, operations))
        for need in needs:
            if need.resource == "group":
                lines += await self._of_group(need)
        return lines

    async def check(self, settings: Settings) -> None:
        """Raise `BrokerError` unless the data plane's topics are there, wide enough, and ours to use."""
        problems = await self.problems(rights.scorer(settings))
        if not problems:
            problems = await self._too_narrow(settings)
        if problems:
            raise _error(problems)

    async def require(self, needs: Sequence[Need]) -> None:
        """Raise `BrokerError` unless everything needed is there and allowed."""
        if problems := await self.problems(needs):
            raise _error(problems)

    async def commits(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Commit]:
        """What `group` has committed, partitions without a commit left out."""
        asked: dict[str, list[int]] = {}
        for tp in partitions:
            asked.setdefault(tp.topic, []).append(tp.partition)
        request = OffsetFetchRequest(group, [*asked.items()])
        answer = await self._link.ask_coordinator(group, request, lambda answer: answer.error_code)
        found = {}
        for topic, offsets in answer.topics:
            for partition, offset, metadata, code in offsets:
                if code:
                    raise explain(for_code(code)(f"{topic}-{partition}"), self._settings)
                if offset >= 0:
                    found[TopicPartition(topic, partition)] = Commit(offset, metadata or "")
        return found

    async def group(self, name: str) -> dict[str, Any]:
        """A group as its coordinator describes it, in Kafka's words; one that does not exist has no members."""
        answer = await self._link.ask_coordinator(name, DescribeGroup(name), lambda answer: answer.groups[0][0])
        described: dict[str, Any] = answer.to_object()["groups"][0]
        return described

    async def record_crc(self, partition: TopicPartition, offset: int, timeout_s: float = 5.0) -> int | None:
        """crc32 of key and value of the record at `offset`; None where it is no longer retained."""
        consumer = AIOKafkaConsumer(**aiokafka_options(self._settings), enable_auto_commit=False)
        try:
            await consumer.start()
            consumer.assign([partition])
            if (await consumer.beginning_offsets([partition]))[partition] > offset:
                return None
            consumer.seek(partition, offset)
            async with asyncio.timeout(timeout_s):
                record = await consumer.getone()
            return record_crc(record.key, record.value) if record.offset == offset else None
        except TimeoutError:
            return None
        finally:
            await consumer.stop()

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _describe(self, names: Iterable[str]) -> list[dict[str, Any]]:
        answer = await self._link.ask(DescribeTopics(list(names)))
        described: list[dict[str, Any]] = answer.to_object()["topics"]
        return described

    def _problem(self, need: Need, code: int) -> str:
        if code == _NO_SUCH_TOPIC:
            return f"there is no topic {need.name}; {CREATE}"
        if code == _MAY_NOT_SEE_TOPIC:
            return rights.denied(self._settings, need, need.operations)
        return str(explain(for_code(code)(need.name), self._settings))

    async def _of_group(self, need: Need) -> list[str]:
        try:
            described = await self.group(need.name)
        except BrokerError as error:
            if isinstance(error.__cause__, GroupAuthorizationFailedError):
                return [rights.denied(self._settings, need, need.operations)]
            raise
        operations = rights.lacking(described["authorized_operations"], need.operations)
        return [rights.denied(self._settings, need, operations)] if operations else []

    async def _too_narrow(self, settings: Settings) -> list[str]:
        topics = settings.topics
        outputs = (topics.forecasts, topics.anomalies, topics.dead_letters)
        found = await self.topics([*topics.readings, *outputs])
        most = max(found[name].partitions for name in topics.readings)
        return [
            f"topic {name} has {found[name].partitions} partitions and the readings have {most}; add some "
            "(kafka-topics.sh --alter --partitions), or delete it and let `stream-gru topics create` make it"
            for name in outputs
            if found[name].partitions < most
        ]


async def partitions(settings: Settings, topic: str, *operations: rights.Operation) -> int:
    """How many partitions `topic` has. Raises `BrokerError` when it isn't there or may not be used for `operations`."""
    async with await Cluster.connect(settings.kafka) as cluster:
        await cluster.require([Need("topic", topic, operations)])
        return (await cluster.topics([topic]))[topic].partitions


def _error(problems: Sequence[str]) -> BrokerError:
    advice = [RIGHTS] if any(" may not " in problem for problem in problems) else []
    return BrokerError("; ".join([*problems, *advice]))


def _topic(described: dict[str, Any]) -> KafkaTopic:
    id_ = described.get("topic_id", NO_ID)
    partitions = described["partitions"]
    leaderless = tuple(sorted(p["partition"] for p in partitions if p["error_code"] or p["leader"] < 0))
    return KafkaTopic("" if id_ == NO_ID else str(id_), len(partitions), leaderless)
