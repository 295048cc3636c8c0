"""A library's flood becomes a line now and then; our own lines all pass."""

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


def test_our_own_lines_pass_and_those_of_others_too(seldom: Seldom) -> None:
    for name in ("stream_gru.alerter", "kafkaesque", "root"):
        assert seldom.filter(record(name, 1, "100%"))
        assert seldom.filter(record(name, 1, "100%"))
