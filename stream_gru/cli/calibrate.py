"""`stream-gru calibrate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stream_gru.cli import outputs


def calibrate(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle's folder; else the package's, which is left.")] = None,
    series: Annotated[int, typer.Option(min=100, help="How many are made up.")] = 1000,
    readings: Annotated[int, typer.Option(min=1500, help="Of each; the first 1,000 don't count.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="The check takes the next one.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Leave the bundle as it is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure which thresholds give how many false alarms, write them into the bundle, and check them.

    The engine runs over made-up series in which all is well; the check makes up others. A bundle that has no thresholds
    of its own is served with a default table. To write them makes another bundle of it: state starts anew.
    """
    if bundle is not None and not dry_run:
        outputs.folder(bundle, "BUNDLE")
    import torch
    from rich.console import Console
    from rich.table import Table

    from stream_gru.training import calibrate as tool

    progress = Console(stderr=True)
    torch.set_num_threads(1)  # as a worker has it
    plan = tool.CalibrationPlan(series, readings, seed)
    progress.print(f"[dim]{series:,} series of {readings:,} readings ...[/dim]")
    limits = tool.measure(bundle, plan)
    rows = []
    for sensitivity in tool.SENSITIVITIES:
        progress.print(f"[dim]checking sensitivity {sensitivity:g} ...[/dim]")
        rows.append(tool.check(bundle, limits, tool.CalibrationPlan(series, readings, seed + 1), sensitivity))
    if bundle is not None and not dry_run:
        tool.write(bundle, limits)
        progress.print(f"wrote {bundle}", highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps({"alarms": limits._asdict(), "check": [asdict(row) for row in rows]}))
        return
    table = Table("alerts a series and day: asked", "got", "alerts", "readings called anomalous")
    for row in rows:
        got = row.sensitivity * row.got / row.asked
        table.add_row(f"{row.sensitivity:g}", f"{got:.3g}", f"{row.got:,}", f"{row.share:.2%}")
    Console().print(table)
