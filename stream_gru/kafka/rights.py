"""What each role must be allowed to do in Kafka, and how it is said that it may not. docs/security.md has the ACLs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stream_gru.kafka.causes import user
from stream_gru.kafka.names import group_id
from stream_gru.settings import Kafka, Settings

Operation = Literal["READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "DESCRIBE_CONFIGS"]

# Kafka's numbers of the operations: which bit tells that one may.
_BITS: dict[Operation, int] = {
    "READ": 3,
    "WRITE": 4,
    "CREATE": 5,
    "DELETE": 6,
    "ALTER": 7,
    "DESCRIBE": 8,
    "DESCRIBE_CONFIGS": 10,
}
_UNKNOWN = -(2**31)  # a broker that does not tell


@dataclass(frozen=True, slots=True)
class Need:
    """Operations on one topic or group. READ and WRITE bring DESCRIBE with them."""

    resource: Literal["topic", "group"]
    name: str
    operations: tuple[Operation, ...]


def scorer(settings: Settings) -> list[Need]:
    """The data plane."""
    topics = settings.topics
    return [
        *(Need("topic", name, ("READ",)) for name in topics.readings),
        *(Need("topic", name, ("WRITE",)) for name in (topics.forecasts, topics.anomalies, topics.dead_letters)),
        Need("group", settings.kafka.group_id, ("READ",)),
    ]


def listener(settings: Settings) -> list[Need]:
    """Obeying commands."""
    return [
        Need("topic", settings.topics.commands, ("READ",)),
        Need("topic", settings.topics.command_replies, ("WRITE",)),
    ]


def alerter(settings: Settings) -> list[Need]:
    """The control plane. Its changelog topic is not among them: it may be left to the alerter to create it."""
    return [
        Need("topic", settings.topics.anomalies, ("READ",)),
        Need("topic", settings.topics.alerts, ("WRITE",)),
        Need("group", group_id(settings), ("READ",)),
    ]


def commander(settings: Settings) -> list[Need]:
    """`stream-gru command`. Without a right to DESCRIBE the group it waits for replies until its time is over."""
    return [
        Need("topic", settings.topics.commands, ("WRITE",)),
        Need("topic", settings.topics.command_replies, ("READ",)),
    ]


def lacking(authorized: int, wanted: Iterable[Operation]) -> list[Operation]:
    """Which of `wanted` are not among the operations that a broker says one may do."""
    return [] if authorized == _UNKNOWN else [name for name in wanted if not authorized >> _BITS[name] & 1]


def denied(kafka: Kafka, need: Need, operations: Iterable[Operation]) -> str:
    """That some operations are not allowed."""
    return f"{user(kafka)} may not {' or '.join(operations)} {need.resource} {need.name}"
