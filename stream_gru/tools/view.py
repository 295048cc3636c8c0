"""The demo for people: one screen, drawn anew a few times a second."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream_gru.tools.demo import Demo
from stream_gru.tools.scorecard import Detection
from stream_gru.tools.show import interval, number, plain
from stream_gru.training.fleet import ANOMALIES

RATE_OVER_S = 5.0


class View:
    """Renders a demo; rich calls it whenever the screen is due."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._counts: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def __rich__(self) -> RenderableType:
        demo, found = self._demo, self._demo.detection()
        head = Text.assemble(
            (f"{demo.simulation.series} simulated sensors", "bold"),
            f", a day of theirs in {288 * demo.simulation.series / demo.simulation.rate:.0f} s. {demo.stage.servers}",
            style="dim",
        )
        return Group(head, Columns([self._flow(), _detection(found)]), self._latest(), Text("Ctrl-C ends it", "dim"))

    def _flow(self) -> Panel:
        demo = self._demo
        recent = np.fromiter(demo.score.recent, np.int64)
        p50, p99 = np.percentile(recent, [50, 99]) if len(recent) else (None, None)
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(justify="right", min_width=12)
        table.add_row("readings/s", f"{self._rate():,.0f}")
        table.add_row("readings", f"{demo.sent:,}")
        table.add_row("outputs", f"{demo.score.outputs:,}")
        table.add_row("lag", f"{max(demo.lag, 0):,}")
        table.add_row("latency p50", "–" if p50 is None else f"{p50:.0f} ms")
        table.add_row("latency p99", "–" if p99 is None else f"{p99:.0f} ms")
        table.add_row("dead letters", f"{demo.score.dead_letters:,}")
        return Panel(table, title="flow", title_align="left")

    def _latest(self) -> Panel:
        table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
        for name, justify in (("seen", "left"), ("series", "left"), ("actual", "right"), ("expected", "right")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # literals in a tuple
        table.add_column("90% interval", no_wrap=True)
        table.add_column("score", justify="right")
        table.add_column("injected")
        for flagged in reversed(self._demo.score.latest):
            output = flagged.output
            label = self._demo.score.label_of(output, self._demo.margin_ms)
            table.add_row(
                time.strftime("%H:%M:%S", time.localtime(flagged.seen_ms / 1000)),
                Text(plain(output.series)),
                Text(number(output.y), "red"),
                number(output.yhat),
                interval(output.yhat_lower, output.yhat_upper),
                number(output.anomaly_score),
                Text(label.kind.replace("_", " "), "green") if label else Text("–", "yellow"),
            )
        return Panel(table, title="latest anomalies", title_align="left")

    def _rate(self) -> float:
        now = time.monotonic()
        self._counts.append((now, self._demo.score.outputs))
        while now - self._counts[0][0] > RATE_OVER_S and len(self._counts) > 2:
            self._counts.popleft()
        (since, before), (_, count) = self._counts[0], self._counts[-1]
        return (count - before) / max(now - since, 1e-3)


def _detection(found: Detection) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right", min_width=12)
    injected, hits = found.injected.total(), found.found.total()
    table.add_row("found of injected", f"{hits} of {injected}" + (f"  {hits / injected:.0%}" if injected else ""))
    for kind in ANOMALIES:
        table.add_row(f"  {kind.replace('_', ' ')}", f"{found.found[kind]} of {found.injected[kind]}")
    table.add_row("false alarms", str(found.false_alarms))
    return Panel(table, title="detection", title_align="left")
