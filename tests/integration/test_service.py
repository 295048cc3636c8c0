"""How the process ends: with which code, how soon, and whatever state Kafka is in."""

from __future__ import annotations

import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from stream_gru import service
from stream_gru.settings import Settings, environment
from stream_gru.tools.embedded import free_port
from stream_gru.tools.processes import Child, wait_until
from tests.support import pages, scorers
from tests.support.forked import Worker

ROOT = Path(__file__).parents[2]
Start = Callable[..., Child]


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Start the service with a scorer of `tests.support.scorers`; it is gone at the end of the test."""
    children: list[Child] = []

    def starting(scorer: str, *, forked: bool = True, grace_s: float = service._GRACE_S, **changes: Any) -> Child:
        log, variables = tmp_path / f"{len(children)}.log", environment(settings.model_copy(update=changes))
        if forked:
            child: Child = Worker(log, variables, partial(scorers.main, scorer, grace_s))
        else:
            command = [sys.executable, "-m", "tests.support.scorers", scorer]
            child = Child(command, log, {**variables, "PYTHONPATH": str(ROOT)})
        children.append(child)
        return child

    yield starting
    for child in children:
        child.kill()


def ready(child: Child) -> tuple[bool, dict[str, str]]:
    """What /ready says once the process listens; nothing before."""
    found = re.search(r"http://127\.0\.0\.1:(\d+)", child.log.read_text())
    return pages.ready(int(found[1])) if found else (False, {})


def is_ready(child: Child) -> Callable[[], bool]:
    return lambda: ready(child)[0]


def alerts_say(child: Child, text: str) -> Callable[[], bool]:
    return lambda: text in ready(child)[1].get("alerts", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both_planes_cleanly(start: Start, number: int) -> None:
    child = start("Scorer")
    wait_until(is_ready(child), "both planes", 20, child)
    child.send_signal(number)
    assert child.wait(10) == 0
    assert "Traceback" not in child.log.read_text()


@pytest.mark.parametrize(("scorer", "code"), [("Failing", 1), ("Refusing", 2), ("Ending", 1)])
def test_an_error_of_the_data_plane_ends_the_process(start: Start, scorer: str, code: int) -> None:
    child = start(scorer)
    assert child.wait(20) == code
    text = child.log.read_text()
    if scorer == "Failing":
        raised = float(re.findall(r"raising at (\S+)", text)[0])
        assert time.time() - raised < 5
        assert "RuntimeError: a step failed" in text
    if scorer == "Refusing":
        assert "the data plane: the stored rows belong to another model" in text
        assert "Traceback" not in text


@pytest.mark.parametrize("role", ["all", "scorer", "alerter"])
def test_a_signal_ends_it_while_kafka_can_not_be_reached(start: Start, settings: Settings, role: str) -> None:
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{free_port()}"})
    child = start("Scorer", kafka=nowhere, role=role)
    told = "alerts stopped" if role != "scorer" else "not listening to commands"
    wait_until(lambda: told in child.log.read_text(), "its first try", 20, child)
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0


def test_a_signal_ends_it_while_kafka_does_not_answer(start: Start, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = settings.kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{silent.getsockname()[1]}"})
        child = start("Scorer", kafka=there)
        connection, _ = silent.accept()
        with connection:
            child.send_signal(signal.SIGTERM)
            assert child.wait(10) == 0


def test_a_data_plane_that_does_not_end_is_left_behind(start: Start) -> None:
    assert service._GRACE_S + service._LAST_S < 10, "what Docker gives it"
    child = start("Hung", grace_s=2.0)
    wait_until(is_ready(child), "both planes", 20, child)
    child.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert child.wait(10) == 0
    assert time.monotonic() - began > 1.5, "it was given its time"
    assert "the data plane did not end in time" in child.log.read_text()


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    child = start("Hung")
    wait_until(is_ready(child), "both planes", 20, child)
    child.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in child.log.read_text(), "the first signal", 5, child)
    child.send_signal(signal.SIGTERM)
    assert child.wait(2) == 1


def test_the_data_plane_goes_on_while_the_control_plane_can_not(start: Start, settings: Settings) -> None:
    missing = settings.topics.model_copy(update={"anomalies": "there-is-no-such-topic"})
    child = start("Scorer", topics=missing)
    wait_until(alerts_say(child, "no topic there-is-no-such-topic"), "the reason", 20, child)
    assert child.returncode is None
    assert ready(child)[1]["scorer"] == "ok"
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0


def test_a_scorer_alone_has_no_faust(start: Start) -> None:
    child = start("Scorer", forked=False, role="scorer")  # a fork has imported everything
    wait_until(is_ready(child), "the scorer", 20, child)
    maps = Path(f"/proc/{child.pid}/maps")
    if maps.exists():  # Linux
        assert "faust/_cython" not in maps.read_text()
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0


def test_faust_worker_runs_the_same(settings: Settings, tmp_path: Path) -> None:
    alone = settings.model_copy(update={"role": "alerter"})
    command = [sys.executable, "-m", "faust", "-A", "stream_gru.agents", "worker"]
    child = Child(command, tmp_path / "faust.log", environment(alone))
    try:
        wait_until(lambda: "alerts: ready" in child.log.read_text(), "the alerter", 30, child)
        open_ = [c.laddr.ip for c in psutil.Process(child.pid).net_connections("tcp") if c.status == "LISTEN"]
        assert open_ == ["127.0.0.1"], "the metrics, and not Faust's web server"
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    finally:
        child.kill()
