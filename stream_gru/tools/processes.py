"""Child processes that never outlive their parent, and waiting for what they do."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Protocol

from stream_gru.errors import StreamGruError

POLL_S = 0.02


class Process(Protocol):
    """As much of `subprocess.Popen` as a child needs."""

    pid: int

    def poll(self) -> int | None:
        """The return code; None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """The return code, at its end. Raises `subprocess.TimeoutExpired`."""
        ...


class Child:
    """A process in a group of its own, with its output appended to `log`.

    The group is killed when this process ends, however it ends: a small shell holds the reading end of a pipe whose
    writing end only we have. (Linux's PR_SET_PDEATHSIG would do less: it fires when the *thread* that started the
    child ends, is lost by grandchildren and does not exist on macOS.)
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command, self.log = list(command), log
        with log.open("ab") as output, _undisturbed():
            self._process = self._start(output, {**os.environ, **(environment or {})})
            self.pid = self._process.pid
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$1"', "watcher", str(self.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        """Signal the whole group; nothing happens when it has ended."""
        if self.returncode is None:
            os.killpg(self.pid, number)

    def wait(self, timeout_s: float) -> int:
        """The return code. Raises `StreamGruError` when it still runs after `timeout_s`."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise StreamGruError(f"{self.command[0]} still runs after {timeout_s:g} s\n{self.tail()}") from None
        self._release()
        return code

    def stop(self, grace_s: float = 15.0) -> int:
        """SIGTERM, then SIGKILL after `grace_s`; the return code."""
        self.send_signal(signal.SIGTERM)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._release()
        return self._process.wait()

    def kill(self) -> int:
        """SIGKILL the group, as a crash would; the return code."""
        self.send_signal(signal.SIGKILL)
        code = self._process.wait()
        self._release()
        return code

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        text = self.log.read_text("utf-8", errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"the end of {self.log}:", *(f"  {line}" for line in text[-lines:])])

    def _start(self, output: IO[bytes], environment: Mapping[str, str]) -> Process:
        return subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal reaches us alone, and we stop things in order
        )

    def _release(self) -> None:
        # First the watcher, then its pipe: woken by us it would signal a group whose number may be another's by now.
        self._watcher.kill()
        self._watcher.wait()
        assert self._watcher.stdin is not None  # noqa: S101 - it was started with a pipe
        self._watcher.stdin.close()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C has to wait: between a child and its watcher it would leave a child that nobody watches."""
    if threading.current_thread() is not threading.main_thread():  # the others get no signals
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(*came[0])


def wait_until(ready: Callable[[], bool], what: str, timeout_s: float, child: Child | None = None) -> None:
    """Poll `ready`. Raises `StreamGruError` with the end of the log when `child` ends first or time runs out."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if child is not None and child.returncode is not None:
            raise StreamGruError(f"{what}: {child.command[0]} ended with code {child.returncode}\n{child.tail()}")
        if time.monotonic() > deadline:
            raise StreamGruError(f"{what}: not within {timeout_s:g} s" + (f"\n{child.tail()}" if child else ""))
        time.sleep(POLL_S)
