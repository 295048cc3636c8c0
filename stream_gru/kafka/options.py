"""One section of the settings in the words of each library."""

from __future__ import annotations

import ssl
from typing import Any

from stream_gru import tls
from stream_gru.errors import SettingsError
from stream_gru.settings import Kafka, addresses

CLIENT_ID = "stream-gru"


def aiokafka_options(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments for any client of aiokafka. Raises `SettingsError` for certificates that can't be used."""
    from stream_gru.kafka import unpacking

    unpacking.install()  # whoever consumes does so within bounds
    return _options(kafka)


def kafka_python_options(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments for any client of kafka-python. Raises `SettingsError` for certificates that can't be used."""
    return _options(kafka)


def _options(kafka: Kafka) -> dict[str, Any]:
    # Both libraries took the names of Apache Kafka's own client; here they agree in full.
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": CLIENT_ID,
        "request_timeout_ms": int(kafka.request_timeout_s * 1000),
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.endswith("SSL"):
        options["ssl_context"] = ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = kafka.password()
    return options


def ssl_context(kafka: Kafka) -> ssl.SSLContext:
    """A context that checks the broker's name and certificate, with our own certificate if there is one."""
    return tls.context("kafka", kafka)


def bootstrap_addresses(kafka: Kafka) -> list[tuple[str, int]]:
    """Host and port of each bootstrap server; 9092 where none is given. Raises `SettingsError`."""
    try:
        return addresses(kafka.bootstrap_servers)
    except ValueError as error:
        raise SettingsError(f"kafka.bootstrap_servers: {error}") from None
