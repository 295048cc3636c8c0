"""An error of a library or of the system as one of ours, which says what is wrong, where, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from stream_gru import tls
from stream_gru.errors import BrokerError, BrokerRefusedError, SettingsError
from stream_gru.settings import Kafka

RIGHTS = "add an ACL: docs/security.md has those of each role"
CREATE = "`stream-gru topics create` makes it"

# Kafka's error codes, which both libraries keep as `errno` of their classes, in our words. {what} is what the library
# added: the name of a topic or of a group, where it knows it.
_WORDS = {
    1: "it no longer has, or not yet, the records that were asked for{what}",
    3: "there is no such topic{what}, or no right to see it; " + CREATE,
    5: "a partition has no leader now{what}; is a broker down?",
    6: "a partition has just moved to another broker{what}",
    7: "it did not finish a call in time{what}; is it overloaded, or are copies of the partition away?",
    10: "a record is larger than it takes{what}; raise max.message.bytes of the topic",
    14: "it still loads the offsets of the group",
    15: "it has no coordinator for the group now; is a broker down?",
    16: "the coordinator of the group has just moved to another broker",
    17: "it takes no topic of this name{what}",
    19: "too few copies of the partition are in step to take a record{what}: are brokers down? "
    "(min.insync.replicas of the topic)",
    20: "fewer copies of the partition took a record than min.insync.replicas of the topic asks for{what}; "
    "are brokers down?",
    22: "the group has been divided anew meanwhile",
    25: "the group no longer has this member",
    26: "the broker takes no session timeout of this length; kafka.session_timeout_s must lie between its "
    "group.min.session.timeout.ms and group.max.session.timeout.ms",
    27: "the group is being divided anew",
    29: "{user} may not do this with the topic{what}; " + RIGHTS,
    30: "{user} may not use the group{what}; " + RIGHTS,
    31: "{user} has no right to do this on the cluster; " + RIGHTS,
    35: "it is too old, or too new, for a call that was made{what}",
    38: "it has too few brokers for so many copies{what}; give --replication-factor 1, or start more brokers",
    44: "its policy forbids this{what}",
    47: "another producer has taken the place of this one",
    53: "{user} may not use the transactional id{what}; " + RIGHTS,
    56: "a broker can't use its disk{what}: see the broker's log",
    76: "it does not know the compression that was used{what}; mend kafka.compression",
    81: "the group has as many members as it may (group.max.size)",
    82: "another member of the group uses the same kafka.group_instance_id; each worker needs one of its own",
    89: "a quota is used up{what}",
    90: "another producer has taken the place of this one",
    110: "a group that was made by another kind of consumer has this name; choose another kafka.group_id",
}
_UNSUPPORTED_MECHANISM, _ILLEGAL_SASL_STATE, _AUTHENTICATION_FAILED = 33, 34, 58
# What the libraries say when no connection came about, or one was lost; neither keeps the reason.
_UNCONNECTED = {"KafkaConnectionError", "NodeNotReadyError", "NoBrokersAvailable", "StaleMetadata"}


def user(kafka: Kafka) -> str:
    """Whom Kafka takes us for."""
    if kafka.security_protocol.startswith("SASL"):
        return f"user {kafka.sasl_username!r}"
    if kafka.security_protocol == "SSL" and kafka.ssl_certfile is not None:
        return f"whoever has the certificate {kafka.ssl_certfile}"
    return "a client without a user (User:ANONYMOUS)"


def explain(error: BaseException, kafka: Kafka, where: str | None = None) -> BrokerError:  # noqa: PLR0911 - one a kind
    """`error`, raised by a call to Kafka at `where` (the bootstrap servers if it isn't known), as one of ours."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, SettingsError):  # a file of certificates or of a password that can't be read
        return BrokerRefusedError(str(error))
    at = where or kafka.bootstrap_servers
    if problem := tls.explain(error, "kafka", kafka):
        return BrokerRefusedError(f"Kafka at {at}: {problem}")
    if isinstance(error, OSError | EOFError) or type(error).__name__ == "KafkaTimeoutError":
        return BrokerError(_network(error, at))
    code = getattr(error, "errno", None)
    if refused := _credentials(error, code, kafka):
        return BrokerRefusedError(f"Kafka at {at} {refused}")
    if isinstance(code, int) and code in _WORDS:
        what = _what(error)
        said = _WORDS[code].format(what=f" {what}" if what else "", user=user(kafka))
        return BrokerError(f"Kafka at {at}: {said} ({type(error).__name__})")
    if type(error).__name__ in _UNCONNECTED:
        return BrokerError(f"no connection to Kafka at {at}; is it running, and does it let us in?")
    return BrokerError(f"Kafka at {at}: {_text(error)}")


def joined(errors: Iterable[BrokerError]) -> BrokerError:
    """One error for several servers; a refusal only if none of them may still come up."""
    errors = list(errors)
    kind = BrokerRefusedError if all(isinstance(error, BrokerRefusedError) for error in errors) else BrokerError
    return kind("; ".join(dict.fromkeys(map(str, errors))))


@contextmanager
def broker_errors(kafka: Kafka) -> Iterator[None]:
    """Turn what either library raises inside into a `BrokerError`."""
    import aiokafka.errors
    import kafka.errors as python_errors

    try:
        yield
    except (aiokafka.errors.KafkaError, python_errors.KafkaError) as error:
        raise explain(error, kafka) from error


def _credentials(error: BaseException, code: int | None, kafka: Kafka) -> str | None:
    """How the broker refuses who we are, if that is what it does."""
    protocol = kafka.security_protocol
    if code == _AUTHENTICATION_FAILED or type(error).__name__ == "AuthenticationFailedError":
        return (
            f"refuses the password of {user(kafka)}, or knows no such user with {kafka.sasl_mechanism}; mend "
            "kafka.sasl_username, kafka.sasl_password or kafka.sasl_mechanism"
        )
    if code == _UNSUPPORTED_MECHANISM:
        _, listed, names = str(error).partition("Enabled mechanisms are: ")
        taken = f"it takes {names}" if listed else "sasl.enabled.mechanisms of the broker says which it takes"
        return f"does not take kafka.sasl_mechanism {kafka.sasl_mechanism}; {taken}"
    if code == _ILLEGAL_SASL_STATE:
        return (
            f"asks for no user and password on this port, but kafka.security_protocol is {protocol}; set "
            f"{'SSL' if protocol.endswith('SSL') else 'PLAINTEXT'}, or give the port that does"
        )
    return None


def _network(error: BaseException, at: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"no Kafka at {at}: there is no host of this name ({error.strerror}); mend kafka.bootstrap_servers"
    if isinstance(error, ConnectionRefusedError):
        return f"no Kafka at {at}: the connection was refused; is it running, and is kafka.bootstrap_servers right?"
    if isinstance(error, TimeoutError) or type(error).__name__ == "KafkaTimeoutError":
        return f"no Kafka at {at}: no answer in time; is it stuck or stopped, or does a firewall drop the connection?"
    if isinstance(error, ConnectionError | EOFError):
        return f"Kafka at {at} closed the connection without an answer ({_text(error)})"
    return f"no Kafka at {at}: {_text(error)}; is kafka.bootstrap_servers right?"


def _what(error: BaseException) -> str:
    """The names that the library gave with the error, and nothing that only repeats it."""
    named = error.args[0] if error.args else ""
    if isinstance(named, set | frozenset | list | tuple):
        named = ", ".join(map(str, sorted(named)))
    text = str(named)
    return text if isinstance(named, str) and len(text) < 1000 else ""


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
