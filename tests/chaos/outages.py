"""How a server is taken away and comes back, and what the workers must say meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from tests.chaos.servers import Broker, Store
from tests.support.workers import Crew

NOTICED_S = 15.0
RESUMED_S = 30.0
LINES_S = 5.0
_WINDOW_S = 10.0

Which = Literal["kafka", "redis"]
How = Literal["killed", "frozen", "black-hole"]
LENGTHS = [
    pytest.param(10, id="10s"),
    pytest.param(60, id="60s"),
    pytest.param(600, id="10min", marks=pytest.mark.long),
]


def begin(server: Broker | Store, how: How) -> None:
    """The server is away from now on."""
    match how:
        case "killed":
            server.kill()
        case "frozen":
            server.freeze()
        case "black-hole":
            server.proxy.black_hole()


def end(server: Broker | Store, how: How) -> None:
    """It is back when this returns."""
    match how:
        case "killed":
            server.start()
        case "frozen":
            server.thaw()
        case "black-hole":
            server.proxy.heal()


@dataclass
class Watch:
    """What the workers say while a server is away."""

    workers: Crew
    names: tuple[str, ...]
    pids: dict[str, int]
    noticed: dict[str, float] = field(default_factory=dict)  # seconds until /ready named the server
    lines: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # log lines so far

    def look(self, after_s: float) -> None:
        """Fails when a process has ended; notes who has noticed and how much was logged."""
        for name, worker in self.workers.workers.items():
            assert worker.returncode is None, f"{name} ended with {worker.returncode}\n{worker.tail(30)}"
            assert worker.pid == self.pids[name]
            ready, parts = self.workers.ready(name)
            failing = {part: said for part, said in parts.items() if said != "ok"}
            if not ready and any(word in f"{failing}".lower() for word in self.names):
                self.noticed.setdefault(name, after_s)
            self.lines.setdefault(name, []).append((after_s, self.workers.log(name).count("\n")))

    @property
    def all_noticed(self) -> bool:
        """Whether /ready of everyone has named the server."""
        return self.noticed.keys() == self.pids.keys()

    def most_lines(self, name: str) -> float:
        """Log lines a second, in the ten seconds with most of them."""
        seen = self.lines[name]
        spans = [(b - a, m - n) for i, (a, n) in enumerate(seen) for b, m in seen[i:] if b - a <= _WINDOW_S]
        return max(lines for _, lines in spans) / _WINDOW_S
