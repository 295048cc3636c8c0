"""`stream-gru replay`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stream_gru import settings
from stream_gru.cli.config import Assign, Config, flags
from stream_gru.cli.running import until_stopped


def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV or Parquet.")],
    time: Annotated[str, typer.Option(help="The column with the time: ISO 8601, or epoch s, ms, us or ns.")],
    value: Annotated[str, typer.Option(help="The column with the values; several, by commas, are sent together.")],
    key: Annotated[
        str | None, typer.Option(help="The column that names the series; without it each file is one, by its name.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(min=1e-6, help="How much faster than the data's own clock; 1 is real time.")
    ] = None,
    as_fast_as_possible: Annotated[
        bool, typer.Option("--max", help="As fast as Kafka takes it (the default).")
    ] = False,
    config: Config = None,
    assign: Assign = None,
) -> None:
    """Send history files through Kafka in the order of their times. An empty cell is a missing value."""
    if speed is not None and as_fast_as_possible:
        raise typer.BadParameter("--speed and --max exclude each other")
    from rich.console import Console
    from rich.progress import Progress

    from stream_gru.tools.replay import record
    from stream_gru.tools.replay import replay as run

    loaded = settings.load(config, flags(assign))
    recording = record(loaded, files, time, value.split(","), key)
    progress = Progress(console=Console(file=sys.stderr))
    task = progress.add_task(f"to {loaded.topics.readings[0]}", total=len(recording))

    def show(sent: int) -> None:
        progress.start()  # now that Kafka takes them; the first time only
        progress.update(task, completed=sent)

    try:
        until_stopped(run(loaded, recording, speed, show))
    finally:
        if progress.live.is_started:
            progress.stop()
    sent = int(progress.tasks[task].completed)
    typer.echo(f"{sent} of {len(recording)} readings of {len(recording.names)} series sent", err=True)
