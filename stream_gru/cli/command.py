"""`stream-gru command reset|reload|report`: ask running workers for something and print what they say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_gru import settings
from stream_gru.cli.config import Assign, Config, flags

if TYPE_CHECKING:
    from stream_gru.worker.commands import Command, Reply

Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for replies.")]
Expect = Annotated[
    int | None, typer.Option(min=1, help="Stop waiting after so many; else as many as there are workers in the group.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON array of replies.")]


def reset(
    series: Annotated[str, typer.Argument(help="The series to forget.")],
    topic: Annotated[str | None, typer.Option(help="Only as read from this topic.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only as read from this partition.")] = None,
    config: Config = None,
    assign: Assign = None,
    timeout: Timeout = 10.0,
    expect: Expect = None,
    as_json: AsJson = False,
) -> None:
    """Forget what was learned of a series, as if its next reading were its first.

    The answers name the partitions where it was forgotten. Exit code 1 if no worker knows the series.
    """
    from stream_gru.worker.commands import Command

    command = Command(command="reset", series=series, topic=topic, partition=partition)
    _ask(command, config, assign, timeout, expect, as_json)


def reload(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle's folder on the workers' own disks.")] = None,
    config: Config = None,
    assign: Assign = None,
    timeout: Timeout = 60.0,
    expect: Expect = None,
    as_json: AsJson = False,
) -> None:
    """Take another model; every series starts afresh. Without a bundle: the one that the workers' settings name."""
    from stream_gru.worker.commands import Command

    command = Command(command="reload", bundle=str(bundle) if bundle else None)
    _ask(command, config, assign, timeout, expect, as_json)


def report(
    config: Config = None,
    assign: Assign = None,
    timeout: Timeout = 10.0,
    expect: Expect = None,
    as_json: AsJson = False,
) -> None:
    """What every worker is, holds and waits for."""
    from stream_gru.worker.commands import Command

    _ask(Command(command="report"), config, assign, timeout, expect, as_json)


def _ask(
    command: Command, config: Path | None, assign: list[str] | None, timeout: float, expect: int | None, as_json: bool
) -> None:
    """Exit code 1 when nobody answered, somebody with an error, or nobody knows what is meant."""
    import asyncio

    import msgspec

    from stream_gru.worker import commands

    replies = asyncio.run(commands.send(settings.load(config, flags(assign)), command, timeout, expect))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(replies)).decode())
    elif replies:
        _print(replies)
    else:
        typer.secho(f"no worker answered within {timeout:g} s", fg="red", err=True)
    states = {reply.status for reply in replies}
    if "error" in states or states <= {"ignored"}:
        raise typer.Exit(1)


def _print(replies: list[Reply]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("worker", "status", "answer")
    for reply in replies:
        # Text, not markup: what is in brackets came from elsewhere.
        table.add_row(Text(reply.worker), reply.status, Text("\n".join(_lines(reply.detail))))
    Console().print(table)


def _lines(detail: Any) -> list[str]:
    """An answer as short lines."""
    match detail:
        case dict():
            return [f"{name}: {_flat(value)}" for name, value in detail.items()]
        case []:
            return ["not known here"]
        case list():
            return [str(item) for item in detail]
    return [str(detail)]


def _flat(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    if any(isinstance(inner, dict) for inner in value.values()):
        return "".join(f"\n  {name}: {_flat(inner)}" for name, inner in value.items())
    return ", ".join(f"{name} {inner}" for name, inner in value.items())
