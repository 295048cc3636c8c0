"""What is repeated becomes a line now and then."""

from __future__ import annotations

import logging

import pytest

from stream_gru.logs import Seldom


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def seldom(now: list[float]) -> Seldom:
    return Seldom(10.0, lambda: now[0])


def record(name: str, line: int, message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "client.py", line, message, arguments, None)


def test_a_flood_becomes_a_line_now_and_then(seldom: Seldom, now: list[float]) -> None:
    passed = []
    for n in range(250):
        now[0] = n / 10
        one = record("aiokafka.client", 7, "no node %d", n)
        if seldom.filter(one):
            passed.append(one.getMessage())
    assert passed == ["no node 0", "no node 100 (and 99 more like it)", "no node 200 (and 99 more like it)"]


def test_other_lines_of_a_library_pass(seldom: Seldom) -> None:
    assert seldom.filter(record("kafka", 1, "one"))
    assert seldom.filter(record("kafka", 2, "another"))
    assert not seldom.filter(record("kafka", 1, "one"))


def test_what_we_repeat_is_counted_and_what_differs_passes(seldom: Seldom, now: list[float]) -> None:
    assert seldom.filter(record("stream_gru.worker.source", 1, "waiting for %s", "the store"))
    assert not seldom.filter(record("stream_gru.worker.source", 1, "waiting for %s", "the store"))
    assert seldom.filter(record("stream_gru.worker.source", 1, "waiting for %s", "Kafka"))
    now[0] = 11.0
    again = record("stream_gru.worker.source", 1, "waiting for %s", "the store")
    assert seldom.filter(again)
    assert again.getMessage() == "waiting for the store (and 1 more like it)"


def test_what_others_say_passes(seldom: Seldom) -> None:
    for name in ("kafkaesque", "root"):
        assert seldom.filter(record(name, 1, "100%"))
        assert seldom.filter(record(name, 1, "100%"))


def test_it_does_not_remember_for_ever(seldom: Seldom) -> None:
    for n in range(5000):
        assert seldom.filter(record("stream_gru.x", 1, "gap %d", n))
    assert len(seldom._passed) <= 1000
    assert len(seldom._left_out) == 0
