"""Send the readings of a simulated fleet at a steady rate."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stream_gru.columns import DAY_MS
from stream_gru.errors import SettingsError, StreamGruError
from stream_gru.settings import Settings
from stream_gru.tools.feed import Feed
from stream_gru.training.fleet import Fleet, Label

BLOCK = 8192  # readings made at once
SLICE_S = 0.005  # readings due within so long are sent together
LONGEST_RUN_S = 86_400.0  # how long an endless run can last before its clock reaches the present


@dataclass(frozen=True)
class Simulation:
    """What to simulate. Rates are of wall-clock time, over the whole fleet."""

    rate: float = 1000.0  # readings a second
    series: int = 200
    seed: int = 0
    duration_s: float | None = None  # None: until it is stopped
    anomalies_per_hour: float = 60.0
    speedup: float = 1.0  # how much faster than the wall clock the sensors' own clock runs
    gaps: float = 1 / 5000  # the chance that a reading begins a gap
    nulls: float = 1 / 2000  # the chance that a reading has no value
    quiet: int = 128  # readings of a sensor before its first anomaly and between two

    def __post_init__(self) -> None:
        wrong = [
            f"{name} must be {what}, got {getattr(self, name)}"
            for name, what, ok in (
                ("rate", "above 0", self.rate > 0),
                ("series", "at least 1", self.series >= 1),
                ("duration_s", "above 0", self.duration_s is None or self.duration_s > 0),
                ("anomalies_per_hour", "at least 0", self.anomalies_per_hour >= 0),
                ("speedup", "above 0", self.speedup > 0),
            )
            if not ok
        ]
        if wrong:
            raise StreamGruError("this can't be simulated: " + "; ".join(wrong))

    @property
    def step_ms(self) -> float:
        """Between two readings of a sensor, on its own clock."""
        return self.series / self.rate * self.speedup * 1000

    def fleet(self, now_ms: int) -> Fleet:
        """The fleet, with its clock set back so far that it reaches the present when the run ends, never passes it.

        A reading dated more than a day after its Kafka record would be a dead letter.
        """
        ahead_s = (self.speedup - 1) * (self.duration_s or LONGEST_RUN_S)
        return Fleet(
            self.series,
            step_ms=self.step_ms,
            start_ms=max(now_ms - max(int(ahead_s * 1000), 0), 0),  # not before 1970
            seed=self.seed,
            anomalies=self.anomalies_per_hour / 3600 / self.rate,
            gaps=self.gaps,
            nulls=self.nulls,
            quiet=self.quiet,
        )


async def simulate(
    settings: Settings,
    simulation: Simulation,
    on_labels: Callable[[Sequence[Label]], None] = lambda _: None,
    on_sent: Callable[[int, int], None] = lambda _sent, _last_ms: None,
) -> int:
    """Send until the duration is over, or for ever; the number of readings sent.

    `on_labels` is told of the anomalies just before the block that they begin in is sent; `on_sent` how many readings
    have been sent so far and the timestamp of the last. When Kafka can't take the rate, readings are sent as fast as
    it can. Raises `BrokerError`, and `StreamGruError` when the simulated clock has run a day past the present.
    """
    if len(settings.input.values) > 1:
        raise SettingsError(
            f"input.values names {len(settings.input.values)} fields, but simulated sensors measure one; "
            "`stream-gru replay` sends several"
        )
    fleet = simulation.fleet(int(time.time() * 1000))
    total = sys.maxsize if simulation.duration_s is None else int(simulation.rate * simulation.duration_s)
    sent = 0  # positions, not readings: gaps pass too
    async with Feed(settings, fleet.names) as feed:
        begin = time.monotonic()
        while sent < total:
            ticks = min(max(BLOCK // simulation.series, 1), -(-(total - sent) // simulation.series))
            block = fleet.ticks(ticks)
            on_labels(block.labels)
            last = min(sent + ticks * simulation.series, total)
            while sent < last:
                passed = time.monotonic() - begin
                due = min(int(passed * simulation.rate), last)
                if due <= sent:
                    await asyncio.sleep(max((sent + 1) / simulation.rate - passed, SLICE_S))
                    continue
                a, b = np.searchsorted(block.position, (sent, due))
                await feed.send(block.series[a:b], block.timestamp[a:b], block.value[a:b, None])
                sent = due
                if b > a:
                    on_sent(feed.sent, int(block.timestamp[b - 1]))
            if len(block) and block.timestamp[-1] > time.time() * 1000 + DAY_MS / 2:
                raise StreamGruError(
                    f"at a speed-up of {simulation.speedup:g} the sensors' clock has left the present behind by half a "
                    "day, and what is dated a day ahead is refused; give a duration or a smaller --speedup"
                )
    return feed.sent
