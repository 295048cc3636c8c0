"""Workers without the seconds that a fresh interpreter takes to import torch: forks of a process that has done it.

They are processes like any other: their own session, environment, log, signals and exit code.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO

from stream_gru.tools.processes import Child, Process

_WORKER = [sys.executable, "-m", "stream_gru", "worker"]
_IMPORTED = ["__main__", "stream_gru.service", "stream_gru.worker.worker", "stream_gru.alerts.life", "stream_gru.cli"]


def work() -> None:
    """What a worker does."""
    from stream_gru.cli import main

    main()


class Worker(Child):
    """`stream-gru worker` with settings from `environment`, or what another `main` makes of it."""

    def __init__(self, log: Path, environment: Mapping[str, str], main: Callable[[], None] = work) -> None:
        self._main = main  # of a module: its name is what the process gets
        super().__init__(_WORKER, log, environment)

    def _start(self, output: IO[bytes], environment: Mapping[str, str]) -> Process:
        return _Fork(self._main, output, environment)


class _Fork:
    def __init__(self, main: Callable[[], None], output: IO[bytes], environment: Mapping[str, str]) -> None:
        self._process = _server().Process(target=_run, args=(main, output.name, dict(environment)), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        while self.poll() is None and os.getpgid(self.pid) != self.pid:  # signals go to its group
            time.sleep(0.001)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(_WORKER, timeout or 0)
        return code


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context


def _run(main: Callable[[], None], log: str, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    sys.argv = ["stream-gru", "worker"]
    main()
