"""Our settings in Faust's words."""

from __future__ import annotations

import gc
import ssl
import weakref

import pytest
from pydantic import SecretStr

from stream_gru import agents
from stream_gru.alerts import agent
from stream_gru.kafka.names import changelog_topic
from stream_gru.metrics import Metrics
from stream_gru.settings import Kafka, Settings


def app(**kafka: object) -> agent.App:
    return agent.create_app(Settings(kafka=Kafka(**kafka)), Metrics(), 6)


def test_kafka() -> None:
    conf = app(
        bootstrap_servers="one:9092, two:9093",
        group_id="plant",
        group_instance_id="worker-7",
        session_timeout_s=9,
        rebalance_timeout_s=5,
        request_timeout_s=8,
        compression="lz4",
    ).conf
    assert [str(url) for url in conf.broker] == ["kafka://one:9092", "kafka://two:9093"]
    assert (conf.id, conf.consumer_group_instance_id) == ("plant-alerts", "worker-7")
    assert (conf.broker_session_timeout, conf.broker_heartbeat_interval) == (9, 3)
    assert (conf.broker_rebalance_timeout, conf.broker_request_timeout) == (5, 9)
    assert (conf.producer_request_timeout, conf.producer_acks) == (8, -1)
    assert conf.producer_compression_type == "lz4"
    assert app().conf.producer_compression_type is None


def test_what_faust_would_do_by_itself_and_must_not() -> None:
    conf = app().conf
    assert not conf.web_enabled
    assert conf.topic_disable_leader
    assert conf.table_standby_replicas == 0
    assert str(conf.store) == "memory:"


def test_the_table_is_as_wide_as_the_anomalies_topic() -> None:
    made = app(group_id="plant")
    (table,) = made.tables.values()
    assert table.changelog_topic.get_topic_name() == changelog_topic(made.settings)
    assert table.changelog_topic.partitions == 6


def test_credentials() -> None:
    assert app().conf.broker_credentials is None

    plain = app(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="SCRAM-SHA-256", sasl_username="u", sasl_password="p"
    ).conf.broker_credentials
    assert (plain.protocol.value, plain.mechanism.value) == ("SASL_PLAINTEXT", "SCRAM-SHA-256")
    assert (plain.username, plain.password, plain.ssl_context) == ("u", "p", None)

    both = app(
        security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="u", sasl_password=SecretStr("p")
    ).conf.broker_credentials
    assert both.protocol.value == "SASL_SSL"
    assert isinstance(both.ssl_context, ssl.SSLContext)

    tls = app(security_protocol="SSL").conf.broker_credentials
    assert tls.protocol.value == "SSL"
    assert tls.context.check_hostname


def test_the_module_has_an_app_for_fausts_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_GRU_KAFKA__GROUP_ID", "from-environment")
    assert agents.app.conf.id == "from-environment-alerts"
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = agents.other


def test_fausts_worker_has_no_web_server() -> None:
    made = app()
    made.conf.web_enabled = True  # as its command does
    agents.FaustWorker(made)
    assert not made.conf.web_enabled


async def test_an_app_that_was_taken_down_is_forgotten() -> None:
    made = app()
    gone = weakref.ref(made)
    await made.take_down()
    del made
    gc.collect()
    assert gone() is None
