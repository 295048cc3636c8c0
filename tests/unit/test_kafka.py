from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from stream_gru.errors import BrokerError, SettingsError
from stream_gru.kafka import aiokafka_options, bootstrap_addresses, broker_errors, kafka_python_options, ssl_context
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
