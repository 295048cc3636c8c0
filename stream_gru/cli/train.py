"""`stream-gru train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    out: Annotated[Path, typer.Option(help="The folder of the new bundle.")],
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="History, CSV or Parquet; none: made-up series.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="The column with the time: ISO 8601, or epoch s, ms, us, ns.")
    ] = None,
    value: Annotated[str | None, typer.Option(help="The column with the values; several by commas.")] = None,
    key: Annotated[
        str | None, typer.Option(help="The column that names the series; without it each file is one.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="The bundle to start from; with files it is the package's by default.")
    ] = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Start from random weights.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="How long to fit (8 if --steps is not given).")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="How many steps to fit, for a result to repeat.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed and steps give the same weights on the same machine.")] = 0,
    name: Annotated[str | None, typer.Option(help="What outputs call the model; else the folder's name.")] = None,
    cell: Annotated[str, typer.Option(help="A module of stream_gru.models.")] = "gru",
    hidden: Annotated[int, typer.Option(min=1, help="Units of the cell.")] = 64,
    horizons: Annotated[str, typer.Option(help="Farther steps to forecast; detection waits for the first.")] = "12,36",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Fit a model, on your history or on made-up series, and write it as a bundle.

    The cell, its size and the horizons are those of the bundle that it starts from, if any.
    """
    import numpy as np
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from stream_gru.errors import DataError
    from stream_gru.models import bundle
    from stream_gru.training import data, fit

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    name = name or out.resolve().name
    if files and (time is None or value is None):
        raise DataError("to learn from files, name their columns with --time and --value")
    if scratch and start is not None:
        raise typer.BadParameter("--scratch and --start exclude each other")
    source: data.Source
    held_back: data.Source
    if files:
        source, held_back = data.read(files, time or "", (value or "").split(","), key).split(0.2)
    else:
        source = held_back = data.Synthetic()
    if start is not None or (files and not scratch):
        loaded = bundle.load(start)
        description, forecaster = loaded.description, loaded.forecaster.requires_grad_(True)
        rate = 5e-4
    else:
        description = bundle.describe(name=name, cell=cell, hidden=hidden, horizons=horizons)
        forecaster, rate = bundle.build(description), 3e-3
    plan = fit.Plan(steps, minutes if minutes or steps else 8.0, seed, rate)
    test = held_back.draw(256, 1024, np.random.default_rng([seed, 1]))

    console = Console(stderr=True)
    console.print(f"before: {fit.evaluate(forecaster, test)}")
    columns = (
        TextColumn("step {task.fields[step]}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}% loss {task.fields[loss]:.4f} {task.fields[speed]:,.0f} readings/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("fit", total=1.0, step=0, loss=float("nan"), speed=0.0)
        report = fit.fit(
            forecaster,
            source,
            plan,
            lambda now: progress.update(
                task, completed=now.progress, step=now.step, loss=now.loss, speed=now.readings / now.seconds
            ),
        )
    quality = fit.evaluate(forecaster, test)
    console.print(f"after:  {quality}")
    made = {
        "source": "history" if files else "synthetic",
        "steps": report.step,
        "readings": report.readings,
        "seed": seed,
        "loss": round(report.loss, 4),
        "error_of_last_value": [round(error, 3) for error in quality.error],
        "coverage": [round(share, 3) for share in quality.coverage],
    }
    saved = bundle.save(out, description.model_copy(update={"name": name, "training": made}), forecaster)
    typer.echo(f"{saved.name} in {out}")
