"""`stream-gru compare`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stream_gru.cli import outputs
from stream_gru.cli.config import Config, changes
from stream_gru.cli.learning import Assign, Covariate, Files, Key, Time, Topic, Value, history, names


def compare(
    files: Files = None,
    time: Time = None,
    value: Value = None,
    key: Key = None,
    covariate: Covariate = None,
    topic: Topic = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="NAME|FILE", help="A variant or a recipe; repeat it. [gru, lstm, rnn]"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each fit (300 if --minutes is not given).")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Of each fit.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each; fewer than 3 tell no winner.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out fits on parts of the data.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Of each timing; the models take turns.")] = 31,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write it all to this JSON file.")] = None,
    device: Annotated[str, typer.Option(help="Of the fits and timings: cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    config: Config = None,
    assign: Assign = None,
) -> None:
    """Models side by side on your history: size, speed, memory, error, reach, and what is usually said of them.

    Every fit has the same data and the same number of steps or minutes; the end of each series is only tested on.
    Times are those of one CPU thread without what other processes take, unless --threads or --device say otherwise.
    """
    if out is not None:
        outputs.file(out)
    import torch
    from rich.console import Console

    from stream_gru.errors import DataError
    from stream_gru.training import compare as study
    from stream_gru.training.comparison import claims, table

    torch.set_num_threads(threads)
    if steps is not None and minutes is not None:
        raise typer.BadParameter("--steps and --minutes exclude each other")
    found = history(files, time, value, key, covariate, topic, config)
    if found is None:
        raise DataError("models are compared on history: name files with --time and --value, or use --topic")
    asked = {**changes(assign), "plan.steps": None if minutes else steps or 300, "plan.minutes": minutes}
    if covariate:
        asked.setdefault("context.covariates", names(covariate))
    plan = study.Study(seeds, (1.0,) if quick else study.SHARES, rounds, device=device)
    models = study.recipes(model or study.DEFAULT, asked)
    with Console(stderr=True).status("") as status:
        results = study.compare(models, found, plan, lambda text: status.update(f"{text} ..."))
    verdicts = claims.judge(results)
    whole = json.dumps({**results.plain(), "claims": [asdict(claim) for claim in verdicts]})
    if out is not None:
        out.write_text(whole + "\n")
    if as_json:
        typer.echo(whole)
    elif as_markdown:
        typer.echo(table.markdown(results, verdicts))
    else:
        for each in table.tables(results, verdicts):
            Console().print(each)
