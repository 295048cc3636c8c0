"""`stream-gru advise`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_gru.cli import outputs
from stream_gru.cli.config import Config
from stream_gru.cli.learning import Files, Key, Time, Topic, Value, history

if TYPE_CHECKING:
    from stream_gru.training.advice.advise import Advice
    from stream_gru.training.advice.traits import Traits
    from stream_gru.training.advice.trial import TrialVerdict


def advise(
    files: Files = None,
    time: Time = None,
    value: Value = None,
    key: Key = None,
    topic: Topic = False,
    attempt: Annotated[
        float | None,
        typer.Option("--try", metavar="MINUTES", min=0.01, help="Try the advice and the next best on the last part."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the recipe to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    config: Config = None,
) -> None:
    """What to do with your series, and why: the packaged model, a fine-tuned one or one of their own; a recipe for it.

    Rules of thumb on measured numbers. With --try they are held against a back-test, and the back-test is believed.
    """
    if out is not None:
        outputs.file(out)
    import torch
    from rich.console import Console

    from stream_gru.errors import DataError
    from stream_gru.training.advice import advise as rules
    from stream_gru.training.advice import traits

    torch.set_num_threads(threads)
    found = history(files, time, value, key, None, topic, config)
    if found is None:
        raise DataError("there is nothing to look at: name files with --time and --value, or use --topic")
    measured = traits.measure(found)
    advice, verdict = rules.advise(measured), None
    if attempt is not None:
        from stream_gru.training.advice import trial

        with Console(stderr=True).status("") as status:
            verdict = trial.verify(advice, found, measured, attempt, lambda text: status.update(f"trying: {text} ..."))
        advice = verdict.advice
    text = rules.as_toml(advice)
    if out is not None:
        out.write_text(text)
    if as_json:
        typer.echo(json.dumps(_plain(measured, advice, verdict)))
        return
    for table in _tables(measured, advice, verdict):
        Console().print(table)
    typer.echo(f"\n{text}\n{_next(advice, out)}")


def _next(advice: Advice, out: Path | None) -> str:
    command = f"stream-gru train FILE... --recipe {out or 'recipe.toml'}{advice.flag} --out my-bundle"
    if advice.start == "packaged":
        return f"The packaged model needs no recipe; to fine-tune it once there is more: {command}"
    text = f"Next, with the same --time, --value and --key: {command}"
    if advice.start == "scratch":
        text += "\nOr leave out FILE to fit it on made-up series first, and fine-tune what comes of it with --start."
    return text


def _plain(measured: Traits, advice: Advice, verdict: TrialVerdict | None) -> dict[str, Any]:
    tried = None
    if verdict is not None:
        errors = {one.name: dict(zip(one.steps, one.error, strict=True)) for one in verdict.outcomes}
        tried = {"errors": errors, "said": verdict.said}
    return {
        "traits": asdict(measured),
        "start": advice.start,
        "network": advice.variant,
        "recipe": advice.recipe.model_dump(mode="json"),
        "reasons": [asdict(reason) for reason in advice.reasons],
        "tried": tried,
    }


def _tables(measured: Traits, advice: Advice, verdict: TrialVerdict | None) -> list[Any]:
    from rich.table import Table

    from stream_gru.training.advice.traits import told

    traits = Table("the data", "", title=f"{measured.readings:,} readings, {measured.series:,} series")
    for name, number in told(measured):
        traits.add_row(name, number)
    reasons = Table("about", "advice", "because", "how sure", title="the advice")
    for reason in advice.reasons:
        reasons.add_row(reason.about, reason.choice, reason.because, reason.sure)
    tables: list[Any] = [traits, reasons]
    if verdict is not None:
        tried = Table("tried", "error by step ahead, of the last value's", title="on the last part of the data")
        for one in verdict.outcomes:
            errors = ", ".join(f"{step}: {error:.3f}" for step, error in zip(one.steps, one.error, strict=True))
            tried.add_row(one.name, errors)
        tables += [tried, verdict.said]
    return tables
