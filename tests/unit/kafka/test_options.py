from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import aiokafka.errors
import kafka.errors as python_errors
import pytest
from aiokafka.consumer import fetcher
from pydantic import SecretStr, ValidationError

from stream_gru.errors import BrokerError, BrokerRefusedError, SettingsError
from stream_gru.kafka import (
    aiokafka_options,
    bootstrap_addresses,
    broker_errors,
    explain,
    kafka_python_options,
    ssl_context,
    unpacking,
)
from stream_gru.kafka.causes import joined, user
from stream_gru.kafka.rights import lacking
from stream_gru.settings import Kafka


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-days", "1", "-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_a_plain_connection_says_nothing_of_tls_or_passwords() -> None:
    options = aiokafka_options(Kafka(bootstrap_servers="a:1,b:2", request_timeout_s=42.5))
    assert options == {
        "bootstrap_servers": "a:1,b:2",
        "client_id": "stream-gru",
        "request_timeout_ms": 42_500,
        "security_protocol": "PLAINTEXT",
    }


def test_credentials_and_certificates_reach_both_libraries(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    password = SecretStr("secret")
    kafka = Kafka(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="worker",
        sasl_password=password,
        ssl_cafile=cert,
        ssl_certfile=cert,
        ssl_keyfile=key,
    )
    for options in (aiokafka_options(kafka), kafka_python_options(kafka)):
        assert options["sasl_mechanism"] == "SCRAM-SHA-512"
        assert options["sasl_plain_username"] == "worker"
        assert options["sasl_plain_password"] == password.get_secret_value()
        context = options["ssl_context"]
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
        assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("name", ["ssl_cafile", "ssl_certfile", "ssl_keyfile"])
def test_a_missing_certificate_file_is_named(name: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    with pytest.raises(SettingsError, match=rf"kafka\.{name}.*gone\.pem"):
        ssl_context(Kafka(security_protocol="SSL", **{name: gone}))


def test_certificates_that_can_not_be_used_are_named(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    empty = tmp_path / "empty.pem"
    empty.write_text("not a certificate")
    with pytest.raises(SettingsError, match=r"ssl_cafile.*empty\.pem"):
        ssl_context(Kafka(ssl_cafile=empty))
    with pytest.raises(SettingsError, match=r"ssl_certfile.*empty\.pem"):
        ssl_context(Kafka(ssl_certfile=cert, ssl_keyfile=empty))
    with pytest.raises(SettingsError, match="set both"):
        ssl_context(Kafka(ssl_keyfile=key))


def test_a_key_with_a_passphrase_is_refused_without_asking(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    locked = tmp_path / "locked.pem"
    command = ["openssl", "rsa", "-aes256", "-passout", "pass:x1y2", "-in", str(key), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(SettingsError, match=r"the key has a passphrase: set kafka\.ssl_key_password_file"):
        ssl_context(Kafka(ssl_certfile=cert, ssl_keyfile=locked))
    with pytest.raises(SettingsError, match=r"kafka\.ssl_key_password does not open the key") as caught:
        ssl_context(Kafka(ssl_certfile=cert, ssl_keyfile=locked, ssl_key_password=SecretStr("hunter2")))
    assert "hunter2" not in str(caught.value)
    (tmp_path / "passphrase").write_text("x1y2\n")
    ssl_context(Kafka(ssl_certfile=cert, ssl_keyfile=locked, ssl_key_password_file=tmp_path / "passphrase"))


def test_addresses() -> None:
    assert bootstrap_addresses(Kafka(bootstrap_servers="a.example:1, b ,[::1]:19092")) == [
        ("a.example", 1),
        ("b", 9092),
        ("::1", 19092),
    ]
    for wrong in ("", "a:b", "a:1,,b:2", "::1:9092", "http://a:1"):
        with pytest.raises(ValidationError, match="is not host:port"):
            Kafka(bootstrap_servers=wrong)
        unchecked = Kafka().model_copy(update={"bootstrap_servers": wrong})
        with pytest.raises(SettingsError, match=r"kafka\.bootstrap_servers: .* is not host:port"):
            bootstrap_addresses(unchecked)


def test_errors_of_both_libraries_become_ours() -> None:
    import aiokafka.errors
    import kafka.errors

    for error in (aiokafka.errors.TopicAuthorizationFailedError(), kafka.errors.TopicAuthorizationFailedError()):
        with (
            pytest.raises(BrokerError, match=r"a:1.*TopicAuthorizationFailed"),
            broker_errors(Kafka(bootstrap_servers="a:1")),
        ):
            raise error


PLAIN = Kafka(bootstrap_servers="a:1")
SASL = Kafka(
    bootstrap_servers="a:1",
    security_protocol="SASL_SSL",
    sasl_mechanism="PLAIN",
    sasl_username="worker",
    sasl_password=SecretStr("s3cr3t"),
)


@pytest.mark.parametrize(
    ("error", "words", "refused"),
    [
        (aiokafka.errors.SaslAuthenticationFailed("no"), "refuses the password of user 'worker'", True),
        (python_errors.SaslAuthenticationFailedError("no"), "refuses the password of user 'worker'", True),
        (aiokafka.errors.UnsupportedSaslMechanismError(), "does not take kafka.sasl_mechanism PLAIN", True),
        (aiokafka.errors.IllegalSaslStateError(), "asks for no user and password", True),
        (aiokafka.errors.TopicAuthorizationFailedError({"b", "a"}), "user 'worker' may not", False),
        (aiokafka.errors.TopicAuthorizationFailedError({"b", "a"}), "topic a, b; add an ACL: docs/security.md", False),
        (aiokafka.errors.GroupAuthorizationFailedError("g"), "may not use the group g", False),
        (aiokafka.errors.UnknownTopicOrPartitionError(), "there is no such topic", False),
        (aiokafka.errors.NotEnoughReplicasError(), "min.insync.replicas", False),
        (aiokafka.errors.MessageSizeTooLargeError(), "max.message.bytes", False),
        (python_errors.FencedInstanceIdError(), "kafka.group_instance_id", False),
        (aiokafka.errors.KafkaConnectionError("Unable to bootstrap"), "no connection to Kafka at a:1", False),
        (python_errors.KafkaTimeoutError("Failed to bootstrap"), "no Kafka at a:1: no answer in time", False),
        (ConnectionRefusedError(111, "Connection refused"), "no Kafka at a:1: the connection was refused", False),
        (TimeoutError(), "no Kafka at a:1: no answer in time", False),
        (ConnectionResetError(104, "Connection reset"), "closed the connection without an answer", False),
        (OSError(113, "No route to host"), "no Kafka at a:1: No route to host", False),
        (SettingsError("kafka.ssl_cafile: there is no file x"), "kafka.ssl_cafile: there is no file x", True),
        (RuntimeError("odd"), "Kafka at a:1: RuntimeError: odd", False),
    ],
)
def test_errors_in_plain_words(error: Exception, words: str, refused: bool) -> None:
    explained = explain(error, SASL)
    assert words in str(explained)
    assert isinstance(explained, BrokerRefusedError) == refused
    assert "s3cr3t" not in str(explained)


def test_an_error_of_ours_stays_as_it_is() -> None:
    ours = BrokerRefusedError("said already")
    assert explain(ours, PLAIN) is ours


def test_what_caused_a_lost_connection_is_what_is_told() -> None:
    lost = aiokafka.errors.KafkaConnectionError("Connection at a:1 closed")
    lost.__cause__ = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required")
    lost.__cause__.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert "certificate required" in str(explain(lost, SASL))
    assert "set kafka.ssl_certfile" in str(explain(lost, SASL))


def test_everybody_is_called_by_what_kafka_sees_of_them(tmp_path: Path) -> None:
    assert user(SASL) == "user 'worker'"
    assert "User:ANONYMOUS" in user(PLAIN)
    mine = tmp_path / "mine.pem"
    assert str(mine) in user(Kafka(security_protocol="SSL", ssl_certfile=mine))


def test_several_servers_refuse_only_if_all_do() -> None:
    refused, away = BrokerRefusedError("no"), BrokerError("away")
    assert isinstance(joined([refused, refused]), BrokerRefusedError)
    assert str(joined([refused, refused])) == "no"
    assert not isinstance(joined([refused, away]), BrokerRefusedError)
    assert str(joined([refused, away])) == "no; away"


def test_operations_are_read_off_the_brokers_bits() -> None:
    read_and_describe = 1 << 3 | 1 << 8
    assert lacking(read_and_describe, ("READ", "DESCRIBE")) == []
    assert lacking(read_and_describe, ("READ", "WRITE", "ALTER")) == ["WRITE", "ALTER"]
    assert lacking(-(2**31), ("WRITE",)) == [], "a broker that does not tell"


def test_whoever_consumes_does_so_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "PartitionRecords", None)
    aiokafka_options(Kafka())
    assert fetcher.PartitionRecords is unpacking._PartitionRecords
