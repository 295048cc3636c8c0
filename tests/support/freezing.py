"""Processes that stand still: SIGSTOP takes effect a moment after it was sent, and an answer may come in between."""

from __future__ import annotations

import signal
from typing import Protocol

import psutil

from stream_gru.tools.processes import wait_until


class Process(Protocol):
    """A child, or a server in one."""

    @property
    def pid(self) -> int | None:
        """None where there is none."""
        ...

    def send_signal(self, number: int) -> None:
        """To its whole group."""
        ...


def freeze(process: Process) -> None:
    """Stop it, and return when it stands still."""
    process.send_signal(signal.SIGSTOP)
    stopped = psutil.Process(process.pid)
    wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, "it stands still", 20)
