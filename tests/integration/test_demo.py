"""The demo as its users run it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis
import typer
from kafka import KafkaAdminClient
from rich.console import Console
from typer.testing import CliRunner, Result

from stream_gru.cli import demo as command
from stream_gru.errors import StreamGruError
from stream_gru.settings import Settings
from stream_gru.tools import demo as demos
from stream_gru.tools import stage as stages
from stream_gru.tools.embedded import KafkaServer
from stream_gru.tools.processes import Child, wait_until
from stream_gru.tools.stage import Stage
from stream_gru.tools.view import View
from stream_gru.training.fleet import Label
from tests.support.outputs import output

# Ctrl-C is ignored in what a job in the background starts.
PROGRAM = [
    sys.executable,
    "-c",
    "import signal, typer; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from stream_gru.cli.demo import demo; typer.run(demo)",
]


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command.demo)
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


@contextmanager
def mute_stage(settings: Settings, folder: Path, *, lives: bool = True) -> Iterator[Stage]:
    """A stage whose worker never says a word."""
    worker = Child(["/bin/sh", "-c", "sleep 60" if lives else "echo no model; exit 3"], folder / "worker.log")
    try:
        yield Stage(settings, worker, "nowhere")
    finally:
        worker.kill()


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_every_reading_gets_its_output_and_anomalies_are_found() -> None:
    result = run("--duration", 10, "--rate", 2000, "--series", 20, "--json")
    summary = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 0
    assert summary["readings"] == summary["outputs"] > 19_000
    assert summary["lag"] == summary["dead_letters"] == 0
    assert summary["readings_per_s"] == pytest.approx(2000, rel=0.1)
    assert 0 < summary["latency_p50_ms"] <= summary["latency_p99_ms"]
    assert summary["injected"] >= 5
    assert summary["found"] > 0.5 * summary["injected"]
    assert summary["false_alarms"] < 40  # in the first 1,000 readings of 20 series: young ones give most


def test_ctrl_c_ends_it_cleanly_and_leaves_nothing_behind(kafka: KafkaServer, redis_url: str) -> None:
    servers = ["--kafka", kafka.bootstrap_servers, "--redis", redis_url]
    environment = {**os.environ, "COLUMNS": "120"}
    with (
        subprocess.Popen(
            [*PROGRAM, *servers], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        ) as demo,
        redis.Redis.from_url(redis_url) as client,
    ):
        wait_until(lambda: client.dbsize() > stages.PARTITIONS, "rows beside the control fields", 60)
        children = psutil.Process(demo.pid).children(recursive=True)
        assert any("worker" in child.cmdline() for child in children)
        demo.send_signal(signal.SIGINT)
        printed, _ = demo.communicate(timeout=60)
        assert demo.returncode == 0, printed.decode()
        assert "latest anomalies" in printed.decode()
        assert "Traceback" not in printed.decode()
        assert all(map(gone, children))
        assert client.keys() == []
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    try:
        wait_until(lambda: not [t for t in admin.list_topics() if "demo" in t], "the demo's topics are deleted", 20)
    finally:
        admin.close()


def test_ctrl_c_while_it_starts_is_no_error() -> None:
    with subprocess.Popen(PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if "starting a worker" in line:
                break
        children = psutil.Process(demo.pid).children(recursive=True)
        assert children
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=60)
        assert demo.returncode == 0, errors
    wait_until(lambda: all(map(gone, children)), "what was just being started is gone", 10)


def test_missing_outputs_are_named_and_exit_code_1(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "stage", lambda *_: mute_stage(settings, tmp_path))
    monkeypatch.setattr(demos, "GRACE_S", 0.5)
    result = run("--duration", 0.5, "--rate", 100, "--series", 10, "--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["lag"] == summary["readings"] == 50
    assert summary["outputs"] == 0
    assert f"{settings.topics.readings[0]}-" in result.stderr


async def test_a_worker_that_ends_ends_the_demo(settings: Settings, tmp_path: Path) -> None:
    with mute_stage(settings, tmp_path, lives=False) as stage:
        demo = demos.Demo(stage, demos.simulation(100, 10, 0, None, 64))
        with pytest.raises(StreamGruError, match=r"worker ended with code 3\n.*\n  no model"):
            await asyncio.wait_for(demo.run(), 30)


def test_json_needs_an_end() -> None:
    result = run("--json")
    assert result.exit_code == 2
    assert "--json needs --duration" in result.stderr


def test_the_view_shows_what_is_known(settings: Settings, tmp_path: Path) -> None:
    with mute_stage(settings, tmp_path) as stage:
        demo = demos.Demo(stage, demos.simulation(2000, 200, 0, None, 64))
        view, console = View(demo), Console(width=140, file=io.StringIO(), record=True)
        console.print(view)
        assert "latency p99 –" in " ".join(console.export_text().split())
        demo.score.labels.append(Label("a", "level_shift", 0, 10))
        for offset in range(20):
            demo.score.reading("my-readings", 0, offset, 0)
            demo.score.output(output(offset, flag=offset == 1), int(time.time() * 1000) if offset == 1 else 250)
        demo.score.output(output(21, flag=True, series="evil\x1b[2J"), 0)
        demo._note_sent(30, 20)
        console.print(view)
        shown = console.export_text()
    assert "1 of 1  100%" in shown
    assert "level shift" in shown
    assert "250 ms" in shown
    assert "evil\\x1b[2J" in shown
