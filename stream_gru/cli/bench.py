"""`stream-gru bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def throughput(
    kafka: Annotated[str | None, typer.Option(help="host:port of your Kafka; else KAFKA_HOME, else embedded.")] = None,
    redis: Annotated[str | None, typer.Option(help="URL of your Redis; else one is started.")] = None,
    series: Annotated[int, typer.Option(min=100)] = 20_000,
    readings: Annotated[int, typer.Option(min=10_000)] = 1_600_000,
    rate: Annotated[int, typer.Option(min=100, help="Readings a second while latency is measured.")] = 5_000,
    bundle: Annotated[Path | None, typer.Option(help="A bundle's folder; else the package's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Readings a second end to end and by stage, beside a bare Faust loop and the obvious implementation."""
    from rich.console import Console
    from rich.table import Table

    from stream_gru.bench.throughput import Plan, run

    progress = Console(stderr=True)
    plan = Plan(series=series, readings=readings, rate=rate, bundle=bundle)
    result = run(plan, kafka, redis, lambda text: progress.print(f"[dim]{text} ...[/dim]"))
    if as_json:
        typer.echo(json.dumps(result))
        return
    table = Table("what", "figure", title=f"{series:,} series, {readings:,} readings")
    for name, value in result.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,}"
        table.add_row(name, shown)
    Console().print(table)


def bundles(
    folders: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Folders of bundles.")],
    file: Annotated[list[Path], typer.Option(help="History to forecast, CSV or Parquet; may be repeated.")],
    time: Annotated[str, typer.Option(help="The column with the time.")],
    value: Annotated[str, typer.Option(help="The column with the values; several by commas.")],
    key: Annotated[str | None, typer.Option(help="The column that names the series.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Size, speed and error of bundles beside the package's own: engine alone, one CPU thread, 4,096 series a step."""
    from rich.console import Console
    from rich.table import Table

    from stream_gru.bench.bundles import run
    from stream_gru.training import data

    progress = Console(stderr=True)
    history = data.read(file, time, value.split(","), key)
    result = run(folders, history, lambda text: progress.print(f"[dim]{text} ...[/dim]"))
    if as_json:
        typer.echo(json.dumps(result))
        return
    table = Table("bundle", "parameters", "row, B", "readings/s", "of the package's", "error (coverage) by step ahead")
    for name, row in result.items():
        errors = ", ".join(f"{s}: {e:.3f} ({row['coverage'][s]:.0%})" for s, e in row["error"].items())
        sizes = f"{row['parameters']:,}", f"{row['row_bytes']:,}", f"{row['readings_per_s']:,}", f"{row['ratio']:.2f}"
        table.add_row(name, *sizes, errors)
    Console().print(table)


def gates(
    data: Annotated[Path, typer.Option(help="The folder that holds NAB.")],
    bundle: Annotated[Path | None, typer.Option(help="A bundle's folder; else the package's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Whether the gates move where something happens: in labelled windows, and where made-up series change.

    AUC tells such a window from others by the peak of the signal in it, "+ score" together with the anomaly score; hits
    pass a limit that one other window in five passes; delay is in readings from the event, behind from the score.
    """
    from rich.console import Console
    from rich.table import Table

    from stream_gru.bench.gates import run

    progress = Console(stderr=True)
    result = run(data, bundle, lambda text: progress.print(f"[dim]{text} ...[/dim]"))
    if as_json:
        typer.echo(json.dumps(result))
        return
    console = Console()
    for title, found in {"labelled windows": result["labelled"], **result["changes"]}.items():
        table = Table(title=f"{title}: {found['events']} in {found['series']} series")
        for name in ("signal", "AUC, 95%", "+ score", "hits", "delay", "behind"):
            table.add_column(name, no_wrap=True)
        for name, of in found["signals"].items():
            area, low, high = of["auc"]
            late = ("never" if of[what] is None else f"{of[what]:g}" for what in ("delay", "behind"))
            table.add_row(name, f"{area:.2f} {low:.2f}-{high:.2f}", f"{of['both'][0]:.2f}", f"{of['hits']:.0%}", *late)
        console.print(table)
    for gate, moved in result["moves"].items():
        console.print(
            f"{gate}: its mean moves by {moved['inside']:.4f} inside the windows, {moved['outside']:.4f} outside"
        )
    for size, rate in result["cost"].items():
        console.print(f"batches of {size}: {rate['without']:,} readings/s, {rate['with']:,} with histograms")
