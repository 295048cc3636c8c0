"""What is repeated becomes a line now and then."""

from __future__ import annotations

import logging

import pytest

from stream_gru.process.logs import LIBRARIES, Seldom, to_stderr


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


def test_what_is_repeated_stays_remembered_though_much_else_is_said(seldom: Seldom, now: list[float]) -> None:
    for n in range(999):
        assert seldom.filter(record("stream_gru.x", 1, "gap %d" if n else "waiting", *([n] if n else [])))
    now[0] = 11.0
    assert seldom.filter(record("stream_gru.x", 1, "waiting"))
    for n in range(5):
        assert seldom.filter(record("stream_gru.x", 2, "gap %d", n))
    assert not seldom.filter(record("stream_gru.x", 1, "waiting"))


@pytest.mark.parametrize(("level", "libraries"), [("debug", logging.INFO), ("info", logging.WARNING)])
def test_stderr_gets_no_floods_and_no_records(
    level: str, libraries: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    for name in LIBRARIES:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.getLogger(name).level)
    to_stderr(level)
    assert {logging.getLogger(name).level for name in LIBRARIES} == {libraries}
    for _ in range(50):
        root.handlers[0].handle(record("aiokafka.client", 7, "no node"))
    assert capsys.readouterr().err.count("no node") == 1
