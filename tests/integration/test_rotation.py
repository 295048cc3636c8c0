"""A password that changes under a running worker: it waits, says why, reads its file again and goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from stream_gru.kafka import kafka_python_options
from stream_gru.settings import MetricsSettings, Settings, State, environment
from stream_gru.tools.embedded import HOST, free_port
from stream_gru.tools.processes import wait_until
from tests.support.forked import Worker
from tests.support.pages import ready
from tests.support.secured import PASSWORD, SecuredKafka, page

USER = "scorer"
NEW = "an0ther-passw0rd"


@pytest.fixture
def rotating(secured: SecuredKafka) -> Iterator[SecuredKafka]:
    """The shared Kafka, on which the scorer's password may change."""
    secured.allow(page("acl", USER))
    yield secured
    _set_password(secured, PASSWORD)
    secured.forbid()


def test_a_rotated_password_needs_no_restart(rotating: SecuredKafka, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    settings = Settings(
        role="scorer",
        kafka=rotating.kafka("BRIEF", USER, sasl_password=None, sasl_password_file=password),
        state=State.model_validate({"url": "memory://", "capacity": 20_000}),
        metrics=MetricsSettings(host=HOST, port=free_port()),
    )

    def said() -> tuple[bool, dict[str, str]]:
        return ready(settings.metrics.port)

    log = tmp_path / "worker.log"
    worker = Worker(log, environment(settings))
    try:
        wait_until(lambda: said()[0], "the worker becomes ready", 120, worker)
        _set_password(rotating, NEW)
        wait_until(lambda: "password" in f"{said()[1]}", "readiness tells of the password", 90, worker)
        password.write_text(f"{NEW}\n")
        wait_until(lambda: said()[0], "the worker goes on", 90, worker)
    finally:
        worker.stop()
    told = log.read_text("utf-8")
    assert "refuses the password of user 'scorer'" in told
    assert PASSWORD not in told
    assert NEW not in told


def _set_password(server: SecuredKafka, password: str) -> None:
    with closing(KafkaAdminClient(**kafka_python_options(server.kafka("PLAINTEXT")))) as admin:
        admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_512, password, iterations=4096)]
        )
