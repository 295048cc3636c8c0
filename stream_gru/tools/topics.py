"""Create the topics that a deployment needs, and say precisely what is wrong with the ones there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from stream_gru.errors import BrokerError
from stream_gru.kafka import broker_errors, kafka_python_options, require_answer
from stream_gru.settings import Settings, Topics

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
        if topic.name in by_input and there.partitions != topic.partitions:
            why = "not" if topic.name in topics.readings else "but readings have"
            lines.append(f"{topic.name}: {_count(there.partitions, 'partition')}, {why} {topic.partitions}")
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
    with _admin(settings) as admin:
        there = _describe(admin, settings.topics)
        missing = [topic for topic in wanted(settings.topics, count) if topic.name not in there]
        if missing:
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
            _raise_for(answer["topics"])
            admin.wait_for_topics([topic.name for topic in missing])
        return [topic.name for topic in missing]


def check(settings: Settings, count: int | None = None) -> list[str]:
    """`problems` of the topics on the broker."""
    with _admin(settings) as admin:
        return problems(settings.topics, _describe(admin, settings.topics), count)


def delete(settings: Settings, also: Sequence[str] = (), groups: Sequence[str] = ()) -> None:
    """Remove the topics of `settings`, some more, and the offsets of some groups; what is not there is no matter."""
    from kafka.errors import KafkaError

    with _admin(settings) as admin:
        admin.delete_topics([*(topic.name for topic in wanted(settings.topics, 1)), *also], raise_errors=False)
        with suppress(KafkaError):  # never joined, or a broker that doesn't know the call
            admin.delete_groups(list(groups))


def partitions(settings: Settings, topic: str) -> int:
    """How many partitions `topic` has. Raises `BrokerError` when there is no such topic."""
    with _admin(settings) as admin:
        (answer,) = admin.describe_topics([topic])
    if answer["error_code"]:
        servers = settings.kafka.bootstrap_servers
        raise BrokerError(f"Kafka at {servers} has no topic {topic}; `stream-gru topics create` makes it")
    return len(answer["partitions"])


def _partitions(topics: Topics, found: Mapping[str, Found], asked: int | None) -> int:
    if asked is not None:
        return asked
    return next((found[name].partitions for name in topics.readings if name in found), 1)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


@contextmanager
def _admin(settings: Settings) -> Iterator[Any]:
    from kafka import KafkaAdminClient

    require_answer(settings.kafka)
    with broker_errors(settings.kafka):
        timeout_ms = int(settings.kafka.request_timeout_s * 1000)
        admin = KafkaAdminClient(**kafka_python_options(settings.kafka), bootstrap_timeout_ms=timeout_ms)
        try:
            yield admin
        finally:
            admin.close()


def _describe(admin: Any, topics: Topics) -> dict[str, Found]:
    from kafka.admin import ConfigResource, ConfigResourceType
    from kafka.errors import KafkaError

    names = [topic.name for topic in wanted(topics, 1)]
    there = {t["name"]: t["partitions"] for t in admin.describe_topics(names) if not t["error_code"]}
    try:
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": None}) for name in there]
        configs = admin.describe_configs(asked, config_filter="all").get("topic", {}) if asked else {}
    except KafkaError:  # not allowed to see them, or a broker that doesn't know the call
        configs = {}
    return {
        name: Found(
            partitions=len(partitions),
            leaderless=[p["partition_index"] for p in partitions if p["error_code"] or p["leader_id"] < 0],
            configs={key: entry["value"] for key, entry in configs.get(name, {}).items()},
        )
        for name, partitions in there.items()
    }


def _raise_for(answers: Sequence[Mapping[str, Any]]) -> None:
    already_exists = 36
    wrong = [a for a in answers if a["error_code"] not in (0, already_exists)]
    if wrong:
        lines = [f"  {a['name']}: {a['error_message'] or 'error ' + str(a['error_code'])}" for a in wrong]
        raise BrokerError("these topics could not be created:\n" + "\n".join(lines))
