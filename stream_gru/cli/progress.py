"""The progress bar of a fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from stream_gru.training.fit import FitCheck, FitProgress


class Bar:
    """What `fit` tells, shown."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._first: FitProgress | None = None

    def tell(self, now: FitProgress) -> None:
        """After a step."""
        first = self._first = self._first or now
        speed = (now.readings - first.readings) / max(now.seconds - first.seconds, 1e-9)
        self._progress.update(self._task, completed=now.progress, step=now.step, loss=now.loss, speed=speed)

    def look(self, check: FitCheck) -> bool:
        """After a look at the held-back data; it never ends the fit."""
        self._progress.update(self._task, held_back=f"{check.held_back:.4f}")
        return False


@contextmanager
def bar(console: Console) -> Iterator[Bar]:
    """Steps, share, running loss, held-back loss and speed."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("step {task.fields[step]}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}% loss {task.fields[loss]:.4f} held back {task.fields[held_back]}"),
        TextColumn("{task.fields[speed]:,.0f} readings/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, progress.add_task("fit", total=1.0, step=0, loss=float("nan"), held_back="-", speed=0.0))
