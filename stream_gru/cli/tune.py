"""`stream-gru tune`."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stream_gru.cli import outputs
from stream_gru.cli.config import Config
from stream_gru.cli.learning import Assign, Covariate, Files, Key, RecipeName, Time, Topic, Value, history, recipe

if TYPE_CHECKING:
    from rich.table import Table

    from stream_gru.training.tuning.tune import SearchResult, Tried

_VALUES = "16,32,64: one of these; 16..64: anything between; 32: that one."


def tune(
    out: Annotated[Path, typer.Option(help="The folder of the best bundle, and of the recipe that makes it again.")],
    files: Files = None,
    time: Time = None,
    value: Value = None,
    key: Key = None,
    covariate: Covariate = None,
    topic: Topic = False,
    name: RecipeName = None,
    sampler: Annotated[Literal["grid", "random", "tpe"], typer.Option(help="tpe: Bayesian.")] = "tpe",
    hidden: Annotated[str | None, typer.Option(metavar="VALUES", help=f"Units of a cell. {_VALUES}")] = None,
    layers: Annotated[str | None, typer.Option(metavar="VALUES", help="Cells on each other.")] = None,
    dropout: Annotated[str | None, typer.Option(metavar="VALUES", help="0 to less than 1.")] = None,
    learning_rate: Annotated[str | None, typer.Option(metavar="VALUES", help="As 1e-3..1e-2.")] = None,
    batch: Annotated[str | None, typer.Option(metavar="VALUES", help="Windows in a batch.")] = None,
    length: Annotated[str | None, typer.Option(metavar="VALUES", help="Readings in a window.")] = None,
    space: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML whose table tune holds such values; options win.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Make so many; else 20, or the whole grid.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Stop after so long, with at least one trial.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of each trial; else as the recipe says, or a minute.")
    ] = None,
    pruner: Annotated[
        Literal["median", "asha", "none"], typer.Option(help="How trials without hope are ended early.")
    ] = "median",
    goal: Annotated[
        Literal["loss", "error"], typer.Option(help="On held-back data; error: relative to the last value's.")
    ] = "loss",
    study: Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="Where the study is kept, to go on with it. SQLite or a URL.")
    ] = None,
    study_name: Annotated[str, typer.Option("--name", help="Of the study; the same name goes on with it.")] = "tune",
    seed: Annotated[int, typer.Option(min=0, help="Of what is proposed; plan.seed is that of the fits.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Config = None,
    assign: Assign = None,
) -> None:
    """Search for a better recipe: fits on the past of your history, judged on the end of it, data.held_back.

    Among many trials one is the best by luck too: judge the recipe that is found with `stream-gru validate`.
    """
    outputs.folder(out)
    import torch
    from rich.console import Console

    from stream_gru.errors import DataError
    from stream_gru.training.tuning import space as spaces
    from stream_gru.training.tuning import tune as tool
    from stream_gru.training.tuning.study import Search

    torch.set_num_threads(threads)
    asked = {"hidden": hidden, "layers": layers, "dropout": dropout, "learning_rate": learning_rate}
    dimensions = {
        **(spaces.GRID if sampler == "grid" else spaces.WIDE),
        **spaces.read(space, {**asked, "batch": batch, "length": length}),
    }
    base = tool.budget(recipe(name, assign, covariate), steps)
    found = history(files, time, value, key, covariate, topic, config)
    if found is None:
        raise DataError("tuning needs history: name files with --time and --value, or use --topic")
    console = Console(stderr=True, highlight=False)
    search = Search(sampler, pruner, goal, trials, minutes, seed, study_name, study)
    if sampler == "grid":
        console.print(f"{math.prod(map(len, spaces.grid(dimensions).values()))} combinations")

    def begin(before: int) -> None:
        if before:
            console.print(f"the study {study_name} goes on after {before} trials")

    def tell(one: Tried) -> None:
        what = one.reason or f"{goal} {_figure(one.value)}"
        console.print(
            f"trial {one.number}: {one.state}, {what}, {one.seconds:.0f} s; {_values(one)}",
            markup=False,
            soft_wrap=True,
        )

    result = tool.tune(base, dimensions, found, search, out, begin=begin, tell=tell, device=device)
    if as_json:
        plain = {"before": result.before, "trials": list(map(asdict, result.trials)), "importance": result.importance}
        typer.echo(json.dumps({**plain, "bundle": result.bundle.name, "out": str(out), "refitted": result.refitted}))
        return
    for table in _tables(result, goal):
        Console(width=None if sys.stdout.isatty() else 120).print(table)
    how = "fitted again, as an earlier run had found it" if result.refitted else "as the best trial left it"
    typer.echo(f"{result.bundle.name} in {out}, {how}; to make it again: train --scratch --recipe {out / tool.RECIPE}")


def _tables(result: SearchResult, goal: str, most: int = 10) -> list[Table]:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    counts = {state: sum(one.state == state for one in result.trials) for state in ("complete", "pruned", "fail")}
    title = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    names = list(result.trials[0].chosen)
    best = Table(box=SIMPLE_HEAD, caption=f"{len(result.trials)} trials: {title}", caption_justify="left")
    for head in ("trial", "state", goal, "steps", "seconds", *names):
        best.add_column(head, justify="left" if head == "state" else "right")
    for one in result.trials[:most]:
        steps = "" if one.steps is None else str(one.steps)
        values = (f"{one.chosen[name]:.4g}" if name in one.chosen else "" for name in names)
        best.add_row(str(one.number), one.state, _figure(one.value), steps, f"{one.seconds:.0f}", *values)
    if not result.importance:
        return [best]
    caption = "importance: what it explains of the difference between trials"
    shares = Table("setting", "importance", box=SIMPLE_HEAD, caption=caption, caption_justify="left")
    for name, share in result.importance.items():
        shares.add_row(name, f"{share:.0%}")
    return [best, shares]


def _values(one: Tried) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in one.chosen.items())


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
