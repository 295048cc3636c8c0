"""What the commands that learn from history share: where it is, and the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_gru.cli import outputs
from stream_gru.cli.config import changes

if TYPE_CHECKING:
    from stream_gru.training.data import SeriesCollection
    from stream_gru.training.recipe import Recipe

Files = Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="History, CSV or Parquet.")]
Time = Annotated[str | None, typer.Option(help="The column with the time: ISO 8601, or epoch s, ms, us or ns.")]
Value = Annotated[str | None, typer.Option(help="The column with the values; several by commas.")]
Key = Annotated[str | None, typer.Option(help="The column that names the series; without it each file is one.")]
Covariate = Annotated[
    str | None, typer.Option(help="Columns with numbers that come with each reading, by commas; they become inputs.")
]
Topic = Annotated[
    bool, typer.Option("--topic", help="Learn from what the configured topic of readings holds, instead of files.")
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", "-r", metavar="NAME|FILE", help="A named variant, or a TOML file.")
]
Assign = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="Of the recipe, as network.layers=2.")
]


def history(
    files: list[Path] | None,
    time: str | None,
    value: str | None,
    key: str | None,
    covariate: str | None,
    topic: bool,
    config: Path | None,
) -> SeriesCollection | None:
    """The history that the options name; None: they name none. Raises `StreamGruError` for what can't be read."""
    from stream_gru.errors import DataError

    if topic:
        if files or time or value or key or covariate:
            raise DataError("--topic reads the fields that the configuration names: leave out files and columns")
        return _topic(config)
    if not files:
        if time or value or key or covariate:
            raise DataError("there are columns but no file to read them from")
        return None
    if time is None or value is None:
        raise DataError("to learn from files, name their columns with --time and --value")
    from stream_gru.training import data

    return data.read(files, time, names(value), key, names(covariate))


def recipe(name: str | None, assignments: list[str] | None, covariate: str | None = None) -> Recipe:
    """The recipe that the options name. `covariate` columns become inputs of the model, unless it names its own."""
    from stream_gru.training.recipe import load

    asked: dict[str, Any] = changes(assignments)
    loaded = load(name, asked)
    if covariate and not loaded.context.covariates:
        loaded = load(name, {**asked, "context.covariates": names(covariate)})
    return loaded


def names(columns: str | None) -> tuple[str, ...]:
    """``a,b`` -> a and b."""
    return tuple(columns.split(",")) if columns else ()


def look_first(out: Path, topic: bool, config: Path | None) -> None:
    """Raises where `out` can't be written or Kafka can't be used, before what takes seconds to import."""
    from stream_gru import settings
    from stream_gru.kafka import require_answer

    outputs.folder(out)
    if topic:
        require_answer(settings.load(config).kafka)


def _topic(config: Path | None) -> SeriesCollection:
    from rich.console import Console

    from stream_gru import settings
    from stream_gru.training import data

    loaded = settings.load(config)
    console = Console(stderr=True)
    with console.status("reading") as status:

        def tell(now: data.TopicProgress) -> None:
            status.update(f"{now.records:,} records read, {now.bad:,} of them bad")

        found, progress = data.read_topic(loaded, tell=tell)
    console.print(
        f"{', '.join(loaded.topics.readings)}: {progress.records:,} records, {progress.bad:,} of them can't be decoded "
        f"and are left out; {len(found.series):,} series to learn from"
    )
    return found
