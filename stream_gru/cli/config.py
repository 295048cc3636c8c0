"""`stream-gru config show|check`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from stream_gru import settings, toml

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file; else $STREAM_GRU_CONFIG, stream-gru.toml.")
]
Assign = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting, as kafka.group_id=demo.")
]

Bundle = Annotated[Path | None, typer.Option("--bundle", help="A bundle's folder; else the setting model.bundle.")]


def flags(assignments: list[str] | None, bundle: Path | None = None) -> dict[str, Any]:
    """``--set NAME=VALUE`` options, and the bundle, as the flags that `settings.load` takes.

    VALUE is TOML or else plain text.
    """
    parsed: dict[str, Any] = {}
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise typer.BadParameter(f"{assignment!r} is not NAME=VALUE", param_hint="--set")
        try:
            parsed[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[name.strip()] = value
    return parsed if bundle is None else parsed | {"model.bundle": bundle}


def show(
    config: Config = None,
    assign: Assign = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of TOML.")] = False,
) -> None:
    """Print the effective settings, secrets masked."""
    tree = settings.dump(settings.load(config, flags(assign)))
    typer.echo(json.dumps(tree, indent=2) if as_json else "\n".join(toml.lines(tree)))


def check(config: Config = None, assign: Assign = None) -> None:
    """Say what is wrong with the settings, or that nothing is. Exit code 2 if something is."""
    from stream_gru import codecs, stores

    loaded = settings.load(config, flags(assign))
    codecs.load(loaded.input, ())  # fields that do not go together
    stores.connect(loaded.state.url.get_secret_value(), buckets=loaded.state.buckets, timeout_s=1)  # no such store
    typer.echo("the configuration is valid")
