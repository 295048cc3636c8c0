"""Whoever looks for the cause of an error arrives, whatever a library does with its errors."""

from __future__ import annotations

import ssl

import pytest
from aiokafka.errors import OutOfOrderSequenceNumber

from stream_gru import tls
from stream_gru.errors import BrokerError, chain
from stream_gru.kafka import explain
from stream_gru.settings import Kafka


@pytest.fixture
def circle() -> OutOfOrderSequenceNumber:
    """An error that is kept and raised again while its own consequence is handled follows from itself."""
    first, second = OutOfOrderSequenceNumber("kept"), RuntimeError("what came of it")
    second.__context__ = first
    first.__context__ = second
    return first


def test_a_chain_ends(circle: OutOfOrderSequenceNumber) -> None:
    assert [str(error).rpartition(" ")[2] for error in chain(circle)] == ["kept", "it"]
    assert next(chain(ssl.SSLError("alone"))).args == ("alone",)


def test_what_explains_errors_does_not_walk_in_circles(circle: OutOfOrderSequenceNumber) -> None:
    kafka = Kafka()
    assert tls.explain(circle, "kafka", kafka) is None
    assert isinstance(explain(circle, kafka), BrokerError)
