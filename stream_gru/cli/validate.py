"""`stream-gru validate`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_gru.cli.config import Config
from stream_gru.cli.learning import Assign, Covariate, Files, Key, RecipeName, Time, Topic, Value, history, recipe

if TYPE_CHECKING:
    from rich.table import Table

    from stream_gru.training.validate import JudgedPart


def validate(
    files: Files = None,
    time: Time = None,
    value: Value = None,
    key: Key = None,
    covariate: Covariate = None,
    topic: Topic = False,
    name: RecipeName = None,
    folds: Annotated[int, typer.Option(min=1, help="Folds, at least 2; with --rolling blocks of origins.")] = 5,
    gap: Annotated[
        int | None, typer.Option(min=0, help="Readings left out between the past and the future of a fold.")
    ] = None,
    max_train_size: Annotated[
        int | None, typer.Option(min=100, help="Most readings of a series that a fold learns from, the last ones.")
    ] = None,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="One model, in service over the whole history, judged origin by origin.")
    ] = False,
    bundle: Annotated[Path | None, typer.Option(help="With --rolling: this one, instead of a fit.")] = None,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="With --rolling: the package's bundle, instead of a fit.")
    ] = False,
    after: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.99,
            help="With --rolling: share of each series before the first origin, and what a fit learns from. "
            "Else 0 for a bundle, and for a fit all but data.held_back.",
        ),
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="With --rolling: readings from one origin to the next, else 1.")
    ] = None,
    period: Annotated[
        int | None, typer.Option(min=1, help="With --rolling: readings in a season; judges the value a period ago too.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each fit; else as the recipe says.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Of each fit; 8 if nothing says otherwise.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Config = None,
    assign: Assign = None,
) -> None:
    """How good a recipe is on your history, always judged on what is later than what it learned from.

    By folds: fits on longer and longer pasts, each judged on windows of what follows. With --rolling: one model runs
    over the history as in service. Errors are relative to those of repeating the last value.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from stream_gru.errors import DataError
    from stream_gru.training import rolling as origins
    from stream_gru.training import validate as tool

    torch.set_num_threads(threads)
    made = shipped or bundle is not None
    about_origins = {"bundle": bundle, "shipped": shipped or None, "after": after, "every": every, "period": period}
    _refuse(not rolling, "goes with --rolling", about_origins)
    _refuse(rolling, "is about folds", {"gap": gap, "max-train-size": max_train_size})
    _refuse(made, "is about a fit", {"recipe": name, "set": assign, "steps": steps, "minutes": minutes})
    if shipped and bundle is not None:
        raise typer.BadParameter("--shipped and --bundle exclude each other")
    if not rolling and folds == 1:
        raise typer.BadParameter("at least 2", param_hint="--folds")
    found = history(files, time, value, key, covariate, topic, config)
    if found is None:
        raise DataError("validation needs history: name files with --time and --value, or use --topic")
    chosen = recipe(name, assign, covariate)
    if steps or minutes:
        plan = chosen.plan.model_copy(update={"steps": steps, "minutes": minutes})
        chosen = chosen.model_copy(update={"plan": plan})
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=1.0)

        def tell(what: str, share: float) -> None:
            progress.update(task, description=what, completed=share)

        if rolling:
            share = after if after is not None else 0.0 if made else 1 - chosen.data.held_back
            where = origins.Origins(every or 1, folds, share, period)
            model = bundle if made else chosen
            blocks = origins.by_origins(found, model, where, tell, device=device)
        else:
            pairs = list(tool.folds(found, folds, gap or 0, max_train_size))
            blocks = list(tool.by_folds(chosen, pairs, lambda k, now: tell(f"fold {k + 1}", now.progress), device))
    if as_json:
        typer.echo(json.dumps(_plain(blocks, rolling)))
    else:
        Console(width=None if sys.stdout.isatty() else 120).print(_table(blocks, rolling))


def _refuse(when: bool, why: str, options: Mapping[str, Any]) -> None:
    """Options that say nothing here are more likely a misunderstanding."""
    for name, value in options.items():
        if when and value is not None:
            raise typer.BadParameter(f"it {why}", param_hint=f"--{name}")


def _plain(blocks: Sequence[JudgedPart], rolling: bool) -> dict[str, Any]:
    from stream_gru.training.validate import summary

    spreads = {name: asdict(spread) for name, spread in summary(blocks).items()}
    plain = {"kind": "rolling" if rolling else "folds", "blocks": [asdict(block) for block in blocks], **spreads}
    finite: dict[str, Any] = _finite(plain)
    return finite


def _finite(tree: Any) -> Any:
    """`tree` with None for numbers that JSON has not."""
    if isinstance(tree, dict):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _table(blocks: Sequence[JudgedPart], rolling: bool) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from stream_gru.training.validate import summary

    spreads = summary(blocks)
    title = "error, seasonal: relative to the last value's; MAE: in units of the data; coverage: of the 90% interval"
    table = Table(box=SIMPLE_HEAD, caption=title, caption_justify="left")
    for head in ("block", "learned", "origins") if rolling else ("fold", "learned", "judged"):
        table.add_column(head, justify="right")
    table.add_column("from")
    for head in ("ahead", *spreads):
        table.add_column(head if head != "mae" else "MAE", justify="right")
    for number, block in enumerate(blocks):
        learned = "-" if block.trained is None else f"{block.trained:,}"
        name = (str(number + 1), learned, f"{block.judged:,}", _day(block.begin))
        for s, ahead in enumerate(block.score.steps):
            figures = (_figure(measure, getattr(block.score, measure)[s]) for measure in spreads)
            table.add_row(*(name if s == 0 else ("",) * len(name)), str(ahead), *figures)
        table.add_section()
    for s, ahead in enumerate(blocks[0].score.steps):
        figures = (_spread(measure, spread.mean[s], spread.deviation, s) for measure, spread in spreads.items())
        table.add_row("mean" if s == 0 else "", "", "", "", str(ahead), *figures)
    return table


def _spread(measure: str, mean: float, deviation: Sequence[float] | None, step: int) -> str:
    shown = _figure(measure, mean)
    return shown if deviation is None else f"{shown} ± {_figure(measure, deviation[step])}"


def _figure(measure: str, value: float) -> str:
    return f"{value:.1%}" if measure == "coverage" else f"{value:.4g}" if measure == "mae" else f"{value:.3f}"


def _day(epoch_ms: int) -> str:
    return f"{datetime.fromtimestamp(epoch_ms / 1000, UTC):%Y-%m-%d}"
