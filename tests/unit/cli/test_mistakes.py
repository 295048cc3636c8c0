"""Mistakes that people make in configuring it, each on the real command line: what, where, what to do, and no secret.

Those with credentials and certificates of secured servers are in tests/integration/test_causes.py.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream_gru.cli import main
from stream_gru.tools.embedded import free_port
from tests.support.mistakes import FILES, MISTAKES, SASL, SECRETS

LIMIT_S = 10.0
MOST_LINES = 3  # a headline and two of two mistakes
START_S = 40.0  # of Python and torch, at most, on a busy machine


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What is measured is how long a command takes to see the mistake, not how long a busy machine reads torch."""
    import stream_gru.tools.check
    import stream_gru.training.fit  # noqa: F401


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with files to make mistakes with."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run` for commands that leave nothing behind: in this process, in the folder."""

    def run_here(*arguments: str, **variables: str) -> tuple[int, str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["stream-gru", *arguments])
        begin = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            main()
        assert time.monotonic() - begin < LIMIT_S
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run_here


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_said_and_no_secret(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mistake = MISTAKES[name]
    if mistake.toml is not None:
        content = mistake.toml if isinstance(mistake.toml, bytes) else mistake.toml.encode()
        (folder / "stream-gru.toml").write_bytes(content)
    for variable_name, value in mistake.variables.items():
        monkeypatch.setenv(variable_name, value)
    flags = [part for assignment in mistake.sets for part in ("--set", assignment)]
    monkeypatch.setattr("sys.argv", ["stream-gru", *mistake.command.split(), *flags])
    begin = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        main()
    assert time.monotonic() - begin < LIMIT_S
    said = capfd.readouterr()
    assert ended.value.code == mistake.code, said.err
    assert not said.out
    is_clean(said.err)
    assert re.fullmatch(r"(error: .*\n(  .*\n)*)+", said.err), said.err  # no line but those of a message
    assert len(said.err.splitlines()) <= MOST_LINES
    for part in mistake.says:
        assert part in said.err


def test_there_are_enough_of_them() -> None:
    assert len(MISTAKES) >= 40


def test_variables_that_are_no_settings_are_warned_of_and_not_echoed(folder: Path) -> None:
    code, said = run(
        folder,
        "config",
        "show",
        STREAM_GRU_KAFKA__SASL_PASWORD="hunter2",
        STREAM_GRU_HUNTER="hunter2",
        STREAM_GRU_STATE_CAPACITY="50000",  # one underscore is as good
        STREAM_GRU_KAFKA_GROUP_ID="one",
        STREAM_GRU_KAFKA__GROUP_ID="two",
        STREAM_GRU_METRICS_SERVICE_HOST="10.0.0.1",  # Kubernetes' of a service
        STREAM_GRU_METRICS_PORT="tcp://10.0.0.1:9108",
        STREAM_GRU_TOPICS__READINGS="a, b",
    )
    assert code == 0, said
    is_clean(said)
    warnings = [line for line in said.splitlines() if "environment variable" in line]
    assert len(warnings) == 3, said
    assert any("STREAM_GRU_KAFKA__SASL_PASWORD" in w and "mean STREAM_GRU_KAFKA__SASL_PASSWORD?" in w for w in warnings)
    assert any("STREAM_GRU_HUNTER is no setting and is ignored" in warning for warning in warnings)
    assert any("STREAM_GRU_KAFKA_GROUP_ID is ignored: STREAM_GRU_KAFKA__GROUP_ID is set" in w for w in warnings)
    assert "capacity = 50000" in said
    assert 'group_id = "two"' in said
    assert "port = 9108" in said
    assert 'readings = ["a", "b"]' in said


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("role", ["alerter", "scorer"])
def test_a_port_in_use_is_one_line(folder: Path, taken: int, role: str) -> None:
    flags = [f"metrics.port={taken}", f"kafka.bootstrap_servers=127.0.0.1:{free_port()}", "state.password=hunter2"]
    code, said = run(folder, "worker", "--role", role, *(part for flag in flags for part in ("--set", flag)))
    assert code == 2, said
    is_clean(said)
    assert f"can't listen on 127.0.0.1:{taken}: Address already in use; is another worker here?" in said


def test_servers_that_are_not_there_are_both_named(here: Run) -> None:
    kafka, redis = free_port(), free_port()
    code, said = here(
        *("config", "check", "--connect", "--set", f"kafka.bootstrap_servers=127.0.0.1:{kafka}"),
        STREAM_GRU_STATE__URL=f"redis://me:hunter2@127.0.0.1:{redis}/0",
    )
    assert code == 2, said
    is_clean(said)
    ours, theirs = said.splitlines()
    assert f"127.0.0.1:{kafka}" in ours
    assert f"Redis at redis://me:***@127.0.0.1:{redis}/0 does not answer" in theirs


def test_servers_that_never_say_a_word_are_not_waited_for(here: Run, taken: int) -> None:
    code, said = here(
        *("config", "check", "--connect", "--set", f"kafka.bootstrap_servers=127.0.0.1:{taken}"),
        *("--set", f"state.url=redis://127.0.0.1:{taken}/0", "--set", "state.password_file=password"),
    )
    assert code == 2, said
    is_clean(said)
    assert f"Kafka at 127.0.0.1:{taken}" in said
    assert f"Redis at redis://127.0.0.1:{taken}/0 does not answer" in said


@pytest.mark.slow
def test_a_worker_whose_secret_has_no_file_does_not_start(folder: Path) -> None:
    flags = [*SASL, "kafka.sasl_password_file=nowhere", "metrics.port=0", "state.url=memory://"]
    code, said = run(folder, "worker", "--role", "scorer", *(part for flag in flags for part in ("--set", flag)))
    assert code == 2, said
    is_clean(said)
    assert "kafka.sasl_password_file: the file that it names can't be read: No such file" in said


def run(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and all output of the command as a process of its own."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "stream_gru", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert time.monotonic() - begin < LIMIT_S + START_S
    return done.returncode, done.stdout + done.stderr


def is_clean(text: str) -> None:
    """Neither a traceback nor a secret."""
    assert "Traceback" not in text
    assert not [secret for secret in SECRETS if secret in text], text
