"""Kafka: how clients reach it, and in plain words why they can't; what is read, written and asked there."""

from __future__ import annotations

from stream_gru.kafka.causes import broker_errors, explain
from stream_gru.kafka.diagnosis import diagnose, require_answer
from stream_gru.kafka.options import CLIENT_ID, aiokafka_options, bootstrap_addresses, kafka_python_options, ssl_context

__all__ = [
    "CLIENT_ID",
    "aiokafka_options",
    "bootstrap_addresses",
    "broker_errors",
    "diagnose",
    "explain",
    "kafka_python_options",
    "require_answer",
    "ssl_context",
]
