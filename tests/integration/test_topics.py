from __future__ import annotations

from collections.abc import Callable

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from stream_gru.errors import BrokerError
from stream_gru.settings import Kafka, Settings
from stream_gru.tools import topics
from stream_gru.tools.embedded import KafkaServer, free_port


def test_created_topics_are_in_order(settings: Settings) -> None:
    assert topics.check(settings) == []
    assert topics.check(settings, 4) == []
    assert topics.create(settings, 4) == [], "what exists is left alone"


def test_what_is_wrong_is_named(make_settings: Callable[[int], Settings], kafka: KafkaServer) -> None:
    settings = make_settings(2)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    try:
        admin.create_partitions({settings.topics.forecasts: 3})
        admin.delete_topics([settings.topics.alerts])
        compacted = ConfigResource(ConfigResourceType.TOPIC, settings.topics.readings[0], {"cleanup.policy": "compact"})
        admin.alter_configs([compacted])
    finally:
        admin.close()
    assert topics.check(settings) == [
        f"{settings.topics.readings[0]}: cleanup.policy is compact, not delete",
        f"{settings.topics.forecasts}: 3 partitions, but readings have 2",
        f"{settings.topics.alerts}: there is no such topic",
    ]
    assert topics.create(settings, 2) == [settings.topics.alerts], "create puts back what is missing"


def test_an_unreachable_broker_is_named() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerError, match=nowhere):
        topics.check(Settings(kafka=Kafka(bootstrap_servers=nowhere)))
