"""A Kafka and a Redis that ask who one is: TLS, SCRAM, client certificates and access control lists."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from stream_gru.settings import Kafka
from stream_gru.tools.embedded import HOST, ApacheKafka, free_port
from tests.certificates import Authority

PASSWORD = "s3cr3t-f0r-kafka"  # noqa: S105 - looked for in all that is printed
USERS = ("scorer", "alerter", "worker", "operator", "reader", "nobody")
_EXPIRED = datetime.timedelta(hours=-1)

_LISTENERS = """\
listeners=PLAINTEXT://{host}:{PLAINTEXT},SASL://{host}:{SASL},MTLS://{host}:{MTLS},EXPIRED://{host}:{EXPIRED},\
NAMED://{host}:{NAMED},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{PLAINTEXT},SASL://{host}:{SASL},MTLS://{host}:{MTLS},\
EXPIRED://{host}:{EXPIRED},NAMED://{host}:{NAMED}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL,EXPIRED:SASL_SSL,\
NAMED:SASL_SSL
inter.broker.listener.name=PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
sasl.enabled.mechanisms=SCRAM-SHA-512
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
ssl.client.auth=none
ssl.principal.mapping.rules=RULE:^CN=([a-z]+)$/$1/
listener.name.sasl.scram-sha-512.sasl.jaas.config={scram}
listener.name.expired.scram-sha-512.sasl.jaas.config={scram}
listener.name.named.scram-sha-512.sasl.jaas.config={scram}
listener.name.mtls.ssl.client.auth=required
listener.name.expired.ssl.keystore.location={folder}/expired.pem
listener.name.named.ssl.keystore.location={folder}/named.pem
"""
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class SecuredKafka(ApacheKafka):
    """Apache Kafka with a port for each way in. Whoever comes by PLAINTEXT may do everything: the tests' own way."""

    start_timeout_s = 90.0

    def __init__(self, directory: Path, home: Path) -> None:
        super().__init__(directory, home)
        self.ports = {"PLAINTEXT": self.port} | {name: free_port() for name in ("SASL", "MTLS", "EXPIRED", "NAMED")}
        self.authority = Authority(directory)
        self.authority.issue("broker", "localhost", HOST)
        self.authority.issue("expired", "localhost", HOST, left=_EXPIRED)
        self.authority.issue("named", "kafka.example")

    def kafka(self, listener: str = "SASL", user: str = "scorer", **other: object) -> Kafka:
        """Settings of `user` for a listener."""
        values: dict[str, object] = {"bootstrap_servers": f"{HOST}:{self.ports[listener]}"}
        if listener != "PLAINTEXT":
            values |= {"security_protocol": "SASL_SSL", "ssl_cafile": self.authority.file}
            values |= {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": user, "sasl_password": PASSWORD}
        if listener == "MTLS":
            values |= {"security_protocol": "SSL", "ssl_certfile": self.authority.issue(user)}
        return Kafka.model_validate(values | other)

    def _properties(self) -> str:
        listeners = _LISTENERS.format(
            host=HOST, controller=self._controller, folder=self.directory, scram=_SCRAM, **self.ports
        )
        ours = {line.partition("=")[0] for line in listeners.splitlines()}
        kept = [line for line in super()._properties().splitlines() if line.partition("=")[0] not in ours]
        return "\n".join([*kept, listeners])

    def _format_options(self) -> list[str]:
        return [
            option
            for user in USERS
            for option in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={PASSWORD},iterations=4096]")
        ]


def secured_kafka(directory: Path) -> SecuredKafka:
    """Not started; skips the test where there is no Apache Kafka."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("needs Apache Kafka (KAFKA_HOME): the embedded broker has no TLS, no users and no ACLs")
    return SecuredKafka(directory, Path(home))


__all__ = ["PASSWORD", "USERS", "SecuredKafka", "secured_kafka"]
