"""`stream-gru backtest`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stream_gru import settings
from stream_gru.cli import outputs
from stream_gru.cli.config import Assign, Bundle, Config, flags
from stream_gru.errors import DataError


class Kind(StrEnum):
    """The form of the tables."""

    csv = "csv"
    parquet = "parquet"


def backtest(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV or Parquet.")],
    time: Annotated[str, typer.Option(help="The column with the time: ISO 8601, or epoch s, ms, us or ns.")],
    value: Annotated[str, typer.Option(help="The column with the values; several, by commas, are judged together.")],
    out: Annotated[Path, typer.Option(help="The folder for the results.")],
    key: Annotated[
        str | None, typer.Option(help="The column that names the series; without it each file is one, by its name.")
    ] = None,
    covariate: Annotated[
        str | None,
        typer.Option(help="The columns with the covariates of the model, by commas; else those with their names."),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw a picture of each file.")] = False,
    kind: Annotated[Kind, typer.Option("--format", help="Of the tables.")] = Kind.csv,
    bundle: Bundle = None,
    config: Config = None,
    assign: Assign = None,
) -> None:
    """Score history files as a worker would, without Kafka or Redis. An empty cell is a missing value."""
    import torch
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from stream_gru.engine.stepper import Stepper
    from stream_gru.history import backtest as tool
    from stream_gru.models import bundle as bundles

    loaded = settings.load(config, flags(assign, bundle))
    outputs.folder(out)
    values = value.split(",")
    wanted = bundles.load(loaded.model.bundle).description.context.covariates
    columns = covariate.split(",") if covariate else wanted
    if len(columns) != len(wanted):
        raise DataError(
            f"--covariate names {len(columns)} columns; the model has {len(wanted)} covariates{': ' if wanted else ''}"
            f"{', '.join(wanted)}"
        )
    tables = tool.read(files, time, values, key, columns)
    torch.set_num_threads(loaded.model.threads)
    engine = Stepper.of(loaded, features=values, capacity=sum(len(set(table.series)) for table in tables) or 1)
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        task = progress.add_task("readings", total=sum(map(len, tables)))
        results = tool.run(
            engine, files, tables, out, kind=kind.value, plot=plot, tell=lambda n: progress.advance(task, n)
        )
    summary = Table("file", "readings", "anomalous", "alerts", "table")
    for result in results:
        counts = (result.readings, result.anomalies, result.alerts)
        summary.add_row(str(result.file), *(f"{count:,}" for count in counts), str(result.table))
    console.print(summary)
