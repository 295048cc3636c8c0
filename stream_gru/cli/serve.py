"""`stream-gru worker`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from stream_gru import settings
from stream_gru.cli.config import Assign, Config, flags


def worker(
    config: Config = None,
    assign: Assign = None,
    role: Annotated[
        Literal["all", "scorer", "alerter"] | None, typer.Option(help="Both planes, or one of them alone.")
    ] = None,
) -> None:
    """Run a worker: score the readings topics and turn anomalies into alerts, until SIGTERM or Ctrl-C."""
    loaded = settings.load(config, {**flags(assign), "role": role})
    from stream_gru import service

    raise typer.Exit(service.run(loaded))
