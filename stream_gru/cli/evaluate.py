"""`stream-gru evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stream_gru.cli import outputs
from stream_gru.evaluation.suite import Suite


def evaluate(
    suite: Annotated[Suite, typer.Argument(help="Detection: nab to mscloud. Forecasting: ett, m4, one-step.")],
    data: Annotated[Path, typer.Option(help="The folder that holds the data sets: NAB, SKAB, SMD_ASD and so on.")],
    bundle: Annotated[Path | None, typer.Option(help="A bundle's folder; else the package's.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, help="Also score this threshold: of alert_score for nab, of anomaly_score for the others."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="A quick look: so many readings of a series fed first, and scored.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="A folder for the JSON, and a CSV of each table.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw three of the series, into --out.")] = False,
) -> None:
    """Run a published benchmark through the streaming engine, beside published figures and baselines of the same run.

    One parameter set for everything, one pass in order of time; labels are only scored with. Nothing is downloaded:
    docs/benchmarks.md says where each data set comes from.
    """
    if out is not None:
        outputs.folder(out)
    import torch
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    from stream_gru.evaluation import output, suites

    if plot:
        from stream_gru.history.plot import require

        if out is None:
            raise typer.BadParameter("--plot draws into the folder of --out", param_hint="--plot")
        require()
    console = Console(stderr=True)
    torch.set_num_threads(1)  # as a worker has it
    cases = suites.cases(suite, data, limit)
    columns = (SpinnerColumn(), *Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(suite.value, total=suites.values(cases) + 1)  # the last one: baselines and scores
        report = suites.run(suite, cases, data, bundle, threshold=threshold, tell=lambda n: progress.advance(task, n))
        progress.advance(task)
    if out is not None:
        for path in [*output.write(report, out), *(output.draw(report.suite, cases, bundle, out) if plot else [])]:
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(report.plain()))
        return
    tables = Console()
    for table in report.tables:
        if table.shown:
            tables.print(table.drawn())
    tables.print(
        f"{report.model}: {report.readings:,} values of {report.series} series, the engine {report.engine_s:.0f} s, "
        f"everything {report.seconds:.0f} s",
        highlight=False,
    )
