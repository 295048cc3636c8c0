"""One section of the settings in the words of each library."""

from __future__ import annotations

import re
import ssl
from typing import Any

from stream_gru.errors import SettingsError
from stream_gru.settings import Kafka

CLIENT_ID = "stream-gru"


def aiokafka_options(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments for any client of aiokafka. Raises `SettingsError` for certificates that can't be used."""
    from stream_gru import unpacking

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
        assert kafka.sasl_password is not None  # noqa: S101 - the settings were validated: SASL has its credentials
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = kafka.sasl_password.get_secret_value()
    return options


def ssl_context(kafka: Kafka) -> ssl.SSLContext:
    """A context that checks the broker's name and certificate, with our own certificate if there is one."""
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file = getattr(kafka, name)
        if file is not None and not file.is_file():
            raise SettingsError(f"kafka.{name}: there is no file {file}")
    if kafka.ssl_keyfile is not None and kafka.ssl_certfile is None:
        raise SettingsError("kafka.ssl_keyfile is set but kafka.ssl_certfile is not; set both or neither")
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_cafile)
    except ssl.SSLError as error:
        raise SettingsError(f"kafka.ssl_cafile: {kafka.ssl_cafile} holds no PEM certificate ({error})") from None
    if kafka.ssl_certfile is not None:
        key = kafka.ssl_keyfile
        try:
            # The password: without one given, OpenSSL would ask the terminal and a service would hang.
            context.load_cert_chain(kafka.ssl_certfile, key, password=lambda: "")
        except ssl.SSLError as error:
            pair = f"{kafka.ssl_certfile} and its key {key}" if key else f"{kafka.ssl_certfile} (certificate and key)"
            raise SettingsError(
                f"kafka.ssl_certfile: {pair} can't be used ({error}); both must be PEM, belong together, no passphrase"
            ) from None
    return context


def bootstrap_addresses(kafka: Kafka) -> list[tuple[str, int]]:
    """Host and port of each bootstrap server; 9092 where none is given. Raises `SettingsError`."""
    addresses = []
    for server in kafka.bootstrap_servers.split(","):
        match = re.fullmatch(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+)(?::(?P<port>\d{1,5}))?", server.strip())
        if match is None:
            raise SettingsError(f"kafka.bootstrap_servers: {server.strip()!r} is not host:port")
        addresses.append((match["host"].strip("[]"), int(match["port"] or 9092)))
    return addresses
