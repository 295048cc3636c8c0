"""`stream-gru gates`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_gru import settings
from stream_gru.cli import outputs
from stream_gru.cli.backtest import Kind
from stream_gru.cli.config import Assign, Bundle, Config, flags

if TYPE_CHECKING:
    from rich.console import Console

    from stream_gru.history.files import History
    from stream_gru.history.gates import GatesResult
    from stream_gru.settings import Settings


def gates(
    series: Annotated[str | None, typer.Argument(metavar="SERIES", help="Of the topic, or of the file.")] = None,
    file: Annotated[Path | None, typer.Option(help="CSV or Parquet, instead of the topic of readings.")] = None,
    time: Annotated[str | None, typer.Option(help="The file's column with the time.")] = None,
    value: Annotated[str | None, typer.Option(help="The file's column with the values; several by commas.")] = None,
    key: Annotated[str | None, typer.Option(help="The file's column that names the series.")] = None,
    covariate: Annotated[str | None, typer.Option(help="The file's columns with the covariates of the model.")] = None,
    topic: Annotated[str | None, typer.Option(help="Which of the topics of readings.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Else the one that Kafka's clients choose.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Show so many readings; all are stepped.")] = None,
    out: Annotated[Path, typer.Option(help="The folder for the picture and the table.")] = Path(),
    kind: Annotated[Kind, typer.Option("--format", help="Of the table.")] = Kind.csv,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    bundle: Bundle = None,
    config: Config = None,
    assign: Assign = None,
) -> None:
    """Draw value, forecast and the model's gates over time, of a series in Kafka or of a file.

    The series begins anew with the oldest reading that there is: workers are neither asked nor disturbed.
    """
    import torch
    from rich.console import Console

    from stream_gru.engine.stepper import Stepper
    from stream_gru.history import gates as tool

    loaded, console = settings.load(config, flags(assign, bundle)), Console(stderr=True)
    outputs.folder(out)
    if file is not None:
        if time is None or value is None:
            raise typer.BadParameter("--file needs --time and --value")
        values = tuple(value.split(","))
        history = _of_file(file, time, values, key, covariate, series)
    elif series is None:
        raise typer.BadParameter("name a SERIES of the topic, or a --file")
    else:
        values = loaded.input.values
        history = _of_topic(loaded, series, topic, partition, console)
    torch.set_num_threads(loaded.model.threads)
    engine = Stepper.of(loaded, features=values, capacity=len(set(history.series)) or 1)
    with console.status(f"stepping {len(history):,} readings"):
        result = tool.run(engine, history, out, series or (file.stem if file else ""), last=last, kind=kind.value)
    if as_json:
        typer.echo(json.dumps(asdict(result), default=str))
    else:
        _show(result)


def _of_file(
    file: Path, time: str, values: tuple[str, ...], key: str | None, covariate: str | None, series: str | None
) -> History:
    from stream_gru.errors import DataError
    from stream_gru.history import backtest

    (history,) = backtest.read([file], time, values, key, covariate.split(",") if covariate else ())
    if series is None:
        return history
    rows = [row for row, name in enumerate(history.series) if name == series]
    if not rows:
        raise DataError(f"{file}: there is no series {series!r}" + ("" if key else "; name its column with --key"))
    return type(history)([series] * len(rows), history.timestamp[rows], history.value[rows], history.covariates[rows])


def _of_topic(loaded: Settings, series: str, topic: str | None, partition: int | None, console: Console) -> History:
    from stream_gru.history import retained

    with console.status("reading the topic") as status:
        count = 0

        def tell(records: int) -> None:
            nonlocal count
            count += records
            status.update(f"reading the topic: {count:,} records")

        return asyncio.run(retained.read(loaded, series, topic=topic, partition=partition, tell=tell))


def _show(result: GatesResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from stream_gru.history.gates import CLOSED, OPEN

    table = Table("gate", "mean", "25%", "median", "75%", f"below {CLOSED:g}", f"above {OPEN:g}")
    for name, of in result.gates.items():
        shares = (f"{of['closed']:.1%}", f"{of['open']:.1%}")
        table.add_row(name, *(f"{of[what]:.3f}" for what in ("mean", "q25", "q50", "q75")), *shares)
    console = Console()
    console.print(f"{result.series:,} series, {result.readings:,} readings, {result.anomalies:,} of them anomalous")
    console.print(table)
    typer.echo(f"{result.picture}\n{result.table}")
