"""`stream-gru train`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_gru.cli import learning, progress
from stream_gru.cli.config import Config
from stream_gru.cli.learning import Assign, Covariate, Files, Key, RecipeName, Time, Topic, Value

if TYPE_CHECKING:
    from stream_gru.models.bundle import Bundle
    from stream_gru.training.fit import Fitted
    from stream_gru.training.recipe import Recipe

_FINE_RATE = 5e-4  # the learning rate of weights that were fitted before, if the recipe gives none


def train(
    out: Annotated[Path, typer.Option(help="The folder of the new bundle.")],
    files: Files = None,
    time: Time = None,
    value: Value = None,
    key: Key = None,
    covariate: Covariate = None,
    topic: Topic = False,
    config: Config = None,
    recipe: RecipeName = None,
    assign: Assign = None,
    start: Annotated[
        Path | None, typer.Option(help="The bundle to start from; with history it is the package's by default.")
    ] = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Start from random weights.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="How long to fit (8 if --steps is not given).")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="How many steps to fit, for a result to repeat.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed and steps give the same weights on the same machine.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What outputs call the model; else the folder's name.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted fit of the same command.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Also write OUT/report.html: curves and a diagnosis.")
    ] = False,
) -> None:
    """Fit a model, on your history or on made-up series, and write it as a bundle.

    The network and the horizons are those of the bundle that it starts from, if any. OUT/training holds the logs and
    a checkpoint.
    """
    if scratch and start is not None:
        raise typer.BadParameter("--scratch and --start exclude each other")
    learning.look_first(out, topic, config)
    given = {"minutes": minutes, "steps": steps, "seed": seed}
    changes = [f"plan.{setting}={number}" for setting, number in given.items() if number is not None]
    asked = learning.recipe(recipe, [*(assign or []), *changes], covariate)

    import numpy as np
    import torch
    from rich.console import Console

    from stream_gru.models import bundle
    from stream_gru.training import data, fit
    from stream_gru.training.prepare import prepare

    if report:
        from stream_gru.training import report as page  # before the fit, in case that it lacks something
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    history = learning.history(files, time, value, key, covariate, topic, config)

    first: Bundle | None = None
    if start is not None or (history is not None and not scratch):
        first = bundle.load(start)
        adopted = _adopt(asked, first)
        if adopted is None and start is None:
            console.print(
                f"the recipe's model is another than that of {first.name}: starting from random weights", soft_wrap=True
            )
            first = None
        asked = adopted or asked
    if history is None:
        source = data.source(None, asked)
        description = data.describe(asked, name or out.resolve().name, None)
        held_back = source.draw(256, asked.data.length, np.random.default_rng([asked.plan.seed, 1]))
    else:
        learned, last = history.split(asked.data.held_back)
        source = data.source(learned, asked, start)
        description = data.describe(asked, name or out.resolve().name, learned)
        held_back = data.held_back(last, asked, seed=asked.plan.seed, bundle=start)

    try:
        with progress.bar(console) as bar:
            fitted = fit.fit(
                asked,
                source,
                held_back,
                description,
                start=first,
                folder=out / "training",
                resume=resume,
                tell=bar.tell,
                stop=bar.look,
                device=device,
            )
    except KeyboardInterrupt:
        command = [*sys.argv[1:], *([] if resume else ["--resume"])]
        console.print(f"interrupted; to go on: {shlex.join(['stream-gru', *command])}", soft_wrap=True, highlight=False)
        raise typer.Exit(130) from None
    console.print(f"before: {fitted.before}\nafter:  {fitted.quality}", soft_wrap=True)
    origin = "synthetic" if history is None else "topic" if topic else "history"
    made = {"source": origin, "start": first.name if first else None, **_made(asked, fitted)}
    saved = bundle.save(out, description.model_copy(update={"training": made}), fitted.forecaster)
    if report:
        written = page.write(out / "report.html", fitted, prepare(held_back, description), asked)
        console.print(f"report: {written}", soft_wrap=True, highlight=False)
    typer.echo(f"{saved.name} in {out}")


def _adopt(recipe: Recipe, start: Bundle) -> Recipe | None:
    """The recipe with the model of the bundle to start from; None if it asks for another one itself."""
    description = start.description
    model: dict[str, Any] = {
        "features": description.features,
        "network": description.network,
        "horizons": description.horizons,
        "context": description.context.model_copy(update={"loc": (), "scale": ()}),
    }
    if any(name in recipe.model_fields_set and getattr(recipe, name) != part for name, part in model.items()):
        return None
    scaling, plan = description.scaling.kind, recipe.plan
    if "scaling" in recipe.data.model_fields_set and recipe.data.scaling != scaling:
        return None
    if "learning_rate" not in plan.model_fields_set:
        plan = plan.model_copy(update={"learning_rate": _FINE_RATE})
    return recipe.model_copy(
        update={**model, "plan": plan, "data": recipe.data.model_copy(update={"scaling": scaling})}
    )


def _made(recipe: Recipe, fitted: Fitted) -> dict[str, Any]:
    """How the model was made; nothing that differs when it is made again."""
    plan, data = recipe.plan, recipe.data
    return {
        "steps": fitted.steps,
        "readings": fitted.readings,
        "seed": plan.seed,
        "learning_rate": plan.learning_rate,
        "schedule": plan.schedule,
        "weight_decay": plan.weight_decay,
        "clip": plan.clip,
        "precision": plan.precision,
        "batch": data.tokens or data.batch,
        "length": data.length,
        "chunk": plan.chunk,
        "skipped": fitted.skipped,
        "stopped": fitted.stopped,
        "loss": round(fitted.checks[-1].loss, 4),
        "held_back_loss": round(fitted.quality.loss, 4),
        "error_of_last_value": [round(error, 3) for error in fitted.quality.error],
        "coverage": [round(share, 3) for share in fitted.quality.coverage],
    }
