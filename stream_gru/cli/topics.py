"""`stream-gru topics create|check`."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_gru import settings
from stream_gru.cli.config import Assign, Config, flags

_PARTITIONS = 4  # of new topics, where nobody says how many


def create(
    config: Config = None,
    assign: Assign = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of readings, forecasts, anomalies and dead letters; choose once, with room.",
            show_default=str(_PARTITIONS),
        ),
    ] = None,
    replication_factor: Annotated[int, typer.Option(min=-1, help="Copies of each; -1: the broker's default.")] = -1,
    retention_hours: Annotated[float, typer.Option(min=0.1, help="How long records are kept.")] = 168.0,
) -> None:
    """Create the topics that are missing. What exists is left as it is; exit code 1 if that is not in order."""
    from stream_gru.tools import topics

    loaded = settings.load(config, flags(assign))
    for name in topics.create(loaded, partitions or _PARTITIONS, replication_factor, retention_hours):
        typer.echo(f"created {name}")
    _report(topics.check(loaded, partitions))


def check(
    config: Config = None,
    assign: Assign = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="How many the readings must have.")] = None,
) -> None:
    """Say what is wrong with the topics, one line each, and exit with code 1; code 0 when all is well."""
    from stream_gru.tools import topics

    _report(topics.check(settings.load(config, flags(assign)), partitions))


def _report(problems: list[str]) -> None:
    for line in problems:
        typer.echo(line, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo("the topics are in order")
