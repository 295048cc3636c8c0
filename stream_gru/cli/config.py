"""`stream-gru config show|check`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stream_gru import settings
from stream_gru.errors import SettingsError
from stream_gru.settings import toml

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file; else $STREAM_GRU_CONFIG, stream-gru.toml.")
]
Assign = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting, as kafka.group_id=demo.")
]

Bundle = Annotated[Path | None, typer.Option("--bundle", help="A bundle's folder; else the setting model.bundle.")]


def flags(assignments: list[str] | None, bundle: Path | None = None) -> dict[str, Any]:
    """``--set NAME=VALUE`` options, and the bundle, as the flags that `settings.load` takes.

    VALUE is plain text, as in the environment, or a TOML list or string.
    """
    parsed = {
        name: value if isinstance(value, str | list | dict) else text for name, text, value in _assigned(assignments)
    }
    return parsed if bundle is None else parsed | {"model.bundle": bundle}


def changes(assignments: list[str] | None) -> dict[str, Any]:
    """``--set NAME=VALUE`` options of a recipe. VALUE is TOML or else plain text."""
    return {name: value for name, _, value in _assigned(assignments)}


def _assigned(assignments: list[str] | None) -> Iterator[tuple[str, str, Any]]:
    """Name, value as written and value as TOML."""
    for number, assignment in enumerate(assignments or [], 1):
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():  # not shown: it may be a secret
            raise SettingsError(f"--set takes NAME=VALUE, as kafka.group_id=demo; number {number} of them is none")
        try:
            yield name.strip(), text, tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            yield name.strip(), text, text


def show(
    config: Config = None,
    assign: Assign = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of TOML.")] = False,
) -> None:
    """Print the effective settings, secrets masked."""
    tree = settings.dump(settings.load(config, flags(assign)))
    typer.echo(json.dumps(tree, indent=2) if as_json else "\n".join(toml.lines(tree)))


def check(
    config: Config = None,
    assign: Assign = None,
    connect: Annotated[bool, typer.Option("--connect", help="Ask Kafka and the store, too.")] = False,
) -> None:
    """Say what is wrong with the settings, the bundle and the files that they name. Exit code 2 if something is."""
    loaded = settings.load(config, flags(assign))
    from stream_gru.tools import check as tool

    problems = tool.problems(loaded, connect)
    for problem in problems:
        typer.secho(f"error: {problem}", fg="red", err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo("the configuration is valid" + (", and the servers are in order" if connect else ""))
