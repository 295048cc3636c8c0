from __future__ import annotations

from dataclasses import replace

from stream_gru.settings import Topics
from stream_gru.tools.topics import Found, Topic, problems, wanted

TOPICS = Topics(readings=("a", "b"))
FOUND = {
    topic.name: Found(topic.partitions, configs={"cleanup.policy": ",".join(topic.cleanup_policy)})
    for topic in wanted(TOPICS, 3)
}


def test_nothing_is_wrong_with_what_is_wanted() -> None:
    assert problems(TOPICS, FOUND) == []
    assert problems(TOPICS, FOUND, 3) == []


def test_every_topic_is_missed() -> None:
    assert len(problems(TOPICS, {})) == len(wanted(TOPICS, 1)) == 8


def test_outputs_must_have_the_partitions_of_their_inputs() -> None:
    found = {**FOUND, "b": Found(4), "anomalies": Found(1), "dead-letters": Found(1), "alerts": Found(7)}
    assert problems(TOPICS, found) == [
        "b: 4 partitions, not 3",
        "anomalies: 1 partition, but readings have 3",
        "dead-letters: 1 partition, but readings have 3",
    ]
    assert problems(TOPICS, {**FOUND, "dead-letters": Found(4)}) == []
    assert problems(TOPICS, FOUND, 6)[0] == "a: 3 partitions, not 6"


def test_policies_and_leaders() -> None:
    found = {
        **FOUND,
        "forecasts": replace(FOUND["forecasts"], leaderless=[0, 2]),
        "commands": Found(1, configs={"cleanup.policy": "compact"}),
        "alerts": Found(1, configs={"cleanup.policy": "delete, compact"}),
        "anomalies": Found(3),  # a broker that does not tell
    }
    assert problems(TOPICS, found) == [
        "forecasts: no leader for partition 0, 2; is a broker down?",
        "commands: cleanup.policy is compact, not delete",
    ]


def test_three_copies_need_two_acknowledgements() -> None:
    topic = Topic("a", 1)
    assert topic.configs(1.5, 3)["min.insync.replicas"] == "2"
    assert "min.insync.replicas" not in topic.configs(1, 1)


def test_what_is_retained_for_a_short_time_is_not_kept_in_an_open_segment() -> None:
    configs = Topic("a", 1).configs(1.5, 1)
    assert configs == {"cleanup.policy": "delete", "retention.ms": "5400000", "segment.ms": "5400000"}
    assert Topic("a", 1).configs(1000, 1)["segment.ms"] == str(7 * 86_400_000)
