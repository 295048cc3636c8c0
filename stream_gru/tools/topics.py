"""Create the topics that a deployment needs, and say precisely what is wrong with the ones there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from stream_gru.errors import BrokerError
from stream_gru.kafka import broker_errors, kafka_python_options, require_answer
from stream_gru.kafka.causes import RIGHTS, user
from stream_gru.kafka.cluster import Cluster
from stream_gru.kafka.diagnosis import blocking
from stream_gru.settings import Kafka, Settings, Topics

ADMIN_MS = 8000  # for a question to a Kafka that has just answered

BROKER_DEFAULT = -1
WEEK_MS = 7 * 86_400_000  # Kafka's own default for segment.ms
DELETE = frozenset({"delete"})
COMPACT_AND_DELETE = frozenset({"compact", "delete"})


@dataclass(frozen=True)
class Topic:
    """A topic as it should be."""

    name: str
    partitions: int
    cleanup_policy: frozenset[str] = DELETE

    def configs(self, retention_hours: float, replication_factor: int) -> dict[str, str]:
        """Topic configs in Kafka's words."""
        retention_ms = int(retention_hours * 3_600_000)
        configs = {
            "cleanup.policy": ",".join(sorted(self.cleanup_policy)),
            "retention.ms": str(retention_ms),
            "segment.ms": str(min(retention_ms, WEEK_MS)),  # only closed segments are ever removed
        }
        if replication_factor >= 3:
            configs["min.insync.replicas"] = "2"  # else acks=all would be satisfied by one copy
        return configs


@dataclass(frozen=True)
class Found:
    """A topic as it is."""

    partitions: int
    leaderless: Sequence[int] = ()
    configs: Mapping[str, str] = field(default_factory=dict)  # empty where the broker does not tell
    problem: str | None = None  # why nothing else is known of it


def wanted(topics: Topics, partitions: int) -> list[Topic]:
    """What a deployment needs.

    Outputs stand in the partition of their input, so forecasts and anomalies have as many as readings. Alerts are
    compacted by their id: whoever reads them from the start sees every alert's last word, for as long as they are
    retained. Alerts, commands and replies are few, and one partition keeps them in order.
    """
    return [
        *(Topic(name, partitions) for name in topics.readings),
        Topic(topics.forecasts, partitions),
        Topic(topics.anomalies, partitions),
        Topic(topics.dead_letters, partitions),
        Topic(topics.alerts, 1, COMPACT_AND_DELETE),
        Topic(topics.commands, 1),
        Topic(topics.command_replies, 1),
    ]


def problems(topics: Topics, found: Mapping[str, Found], count: int | None = None) -> list[str]:
    """What is wrong, one line each; `count` partitions are demanded of the readings when it is given."""
    lines = []
    expected = wanted(topics, _partitions(topics, found, count))
    by_input = {*topics.readings, topics.forecasts, topics.anomalies}
    for topic in expected:
        there = found.get(topic.name)
        if there is None:
            lines.append(f"{topic.name}: there is no such topic")
            continue
        if there.problem:
            lines.append(f"{topic.name}: {there.problem}")
            continue
        if topic.name in by_input and there.partitions != topic.partitions:
            why = "not" if topic.name in topics.readings else "but readings have"
            lines.append(f"{topic.name}: {_count(there.partitions, 'partition')}, {why} {topic.partitions}")
        elif topic.name == topics.dead_letters and there.partitions < topic.partitions:  # more do no harm
            lines.append(f"{topic.name}: {_count(there.partitions, 'partition')}, but readings have {topic.partitions}")
        if there.leaderless:
            which = ", ".join(map(str, there.leaderless))
            lines.append(f"{topic.name}: no leader for partition {which}; is a broker down?")
        policy = there.configs.get("cleanup.policy")
        if policy is not None and frozenset(policy.replace(" ", "").split(",")) != topic.cleanup_policy:
            lines.append(f"{topic.name}: cleanup.policy is {policy}, not {','.join(sorted(topic.cleanup_policy))}")
    return lines


def create(
    settings: Settings,
    count: int = 4,
    replication_factor: int = BROKER_DEFAULT,
    retention_hours: float = 168.0,
) -> list[str]:
    """Create what is missing, with `count` partitions, and return its names. What exists is left: see `check`."""
    there = blocking(_survey(settings.kafka, settings.topics))
    missing = [t for t in wanted(settings.topics, count) if t.name not in there or there[t.name].problem]
    if not missing:
        return []
    with _admin(settings.kafka) as admin:
        answer = admin.create_topics(
            {
                topic.name: {
                    "num_partitions": topic.partitions,
                    "replication_factor": replication_factor,
                    "configs": topic.configs(retention_hours, replication_factor),
                }
                for topic in missing
            },
            raise_errors=False,
        )
        created = _created(settings.kafka, answer["topics"])
        if created:
            admin.wait_for_topics(created)
    return created


def check(settings: Settings, count: int | None = None) -> list[str]:
    """`problems` of the topics on the broker."""
    there = blocking(_survey(settings.kafka, settings.topics))
    policies = _policies(settings.kafka, [name for name, found in there.items() if not found.problem])
    found = {name: replace(topic, configs=policies.get(name, {})) for name, topic in there.items()}
    return problems(settings.topics, found, count)


def delete(settings: Settings, also: Sequence[str] = (), groups: Sequence[str] = ()) -> None:
    """Remove the topics of `settings`, some more, and the offsets of some groups; what is not there is no matter."""
    from kafka.errors import KafkaError

    require_answer(settings.kafka)
    with _admin(settings.kafka) as admin:
        admin.delete_topics([*(topic.name for topic in wanted(settings.topics, 1)), *also], raise_errors=False)
        with suppress(KafkaError):  # never joined, or a broker that doesn't know the call
            admin.delete_groups(list(groups))


def _partitions(topics: Topics, found: Mapping[str, Found], asked: int | None) -> int:
    if asked is not None:
        return asked
    return next((found[name].partitions for name in topics.readings if name in found), 1)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


@contextmanager
def _admin(kafka: Kafka) -> Iterator[Any]:
    """kafka-python's, for a Kafka that has just answered."""
    from kafka import KafkaAdminClient

    with broker_errors(kafka):
        options = kafka_python_options(kafka) | {"request_timeout_ms": ADMIN_MS, "bootstrap_timeout_ms": ADMIN_MS}
        admin = KafkaAdminClient(**options)
        try:
            yield admin
        finally:
            admin.close()


async def _survey(kafka: Kafka, topics: Topics) -> dict[str, Found]:
    async with await Cluster.connect(kafka) as cluster:
        found, hidden = await cluster.survey(topic.name for topic in wanted(topics, 1))
    seen = {name: Found(topic.partitions, topic.leaderless) for name, topic in found.items()}
    return seen | {name: Found(0, problem=problem) for name, problem in hidden.items()}


def _policies(kafka: Kafka, names: Sequence[str]) -> dict[str, dict[str, str]]:
    from kafka.admin import ConfigResource, ConfigResourceType
    from kafka.errors import KafkaError

    if not names:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": None}) for name in names]
    with _admin(kafka) as admin:
        try:
            configs = admin.describe_configs(asked, config_filter="all").get("topic", {})
        except KafkaError:  # not allowed to see them, or a broker that doesn't know the call
            return {}
    return {name: {key: entry["value"] for key, entry in found.items()} for name, found in configs.items()}


def _created(kafka: Kafka, answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The topics that an answer says were created. Raises `BrokerError` for those that could not be."""
    denied, already_exists = 29, 36
    wrong = [a for a in answers if a["error_code"] not in (0, already_exists)]
    if wrong:
        lines = [
            f"  {a['name']}: {user(kafka)} may not CREATE it; {RIGHTS}"
            if a["error_code"] == denied
            else f"  {a['name']}: {a['error_message'] or 'error ' + str(a['error_code'])}"
            for a in wrong
        ]
        raise BrokerError("these topics could not be created:\n" + "\n".join(sorted(lines)))
    return [a["name"] for a in answers if not a["error_code"]]
