"""How a process's memory moves over its life."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import psutil

MB = 1 << 20
WINDOW_S = 300.0


@dataclass
class Life:
    """Resident memory of one process, from its start to its end."""

    name: str
    pid: int
    times: list[float] = field(default_factory=list)  # seconds
    rss: list[float] = field(default_factory=list)  # MB

    def sample(self, now: float | None = None) -> None:
        """Take its memory down; nothing happens when the process has gone."""
        try:
            resident = psutil.Process(self.pid).memory_info().rss
        except psutil.Error:
            return
        self.times.append(time.monotonic() if now is None else now)
        self.rss.append(resident / MB)

    @property
    def seconds(self) -> float:
        """How long it was watched."""
        return self.times[-1] - self.times[0] if self.times else 0.0

    def floors(self, warm_up_s: float) -> dict[float, float]:
        """The least of each five minutes past the warm-up, in MB, by when it began, in seconds.

        A backlog comes and goes; what leaks is there at the best of times.
        """
        times, rss = np.array(self.times), np.array(self.rss)
        since = times - (times[0] + warm_up_s) if len(times) else times
        window = np.floor_divide(since, WINDOW_S).astype(int)
        return {one * WINDOW_S: float(rss[window == one].min()) for one in np.unique(window[since >= 0]).tolist()}

    def slope(self, warm_up_s: float) -> float | None:
        """MB/h of the floors, by a linear fit; None where it was watched too briefly for one."""
        floors = self.floors(warm_up_s)
        if len(floors) < 3:
            return None
        return float(np.polyfit(list(floors), list(floors.values()), 1)[0] * 3600)

    def describe(self, warm_up_s: float) -> str:
        """One line."""
        slope = self.slope(warm_up_s)
        known = f"{self.name} ({self.seconds / 60:.1f} min): {self.rss[-1]:.0f} MB at the end"
        if slope is None:
            return f"{known}, too short for a slope"
        floors = ", ".join(f"{floor:.0f}" for floor in self.floors(warm_up_s).values())
        return f"{known}; its floor every 5 min after {warm_up_s / 60:.0f} min: {floors} MB, {slope:+.2f} MB/h"


@dataclass
class Lives:
    """Every life of every process of a run."""

    all: list[Life] = field(default_factory=list)

    def sample(self, pids: dict[str, int]) -> None:
        """Take down what runs now, by name."""
        for name, pid in pids.items():
            known = next((life for life in self.all if life.pid == pid), None)
            if known is None:
                known = Life(name, pid)
                self.all.append(known)
            known.sample()

    def longest(self) -> list[Life]:
        """The longest life of each name."""
        best: dict[str, Life] = {}
        for life in self.all:
            if life.times and (life.name not in best or life.seconds > best[life.name].seconds):
                best[life.name] = life
        return list(best.values())
