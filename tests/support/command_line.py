"""The command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable

import typer
from typer.testing import CliRunner, Result

from stream_gru import cli
from stream_gru.settings import Settings


def stream_gru(*arguments: object) -> Result:
    """The whole command with `arguments`; it ends well. Raises what it raised."""
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def command(function: Callable[..., None], settings: Settings, *arguments: object) -> Result:
    """Run one command of the command line against the topics of `settings`."""
    app = typer.Typer()
    app.command()(function)
    flags = [f"kafka.bootstrap_servers={settings.kafka.bootstrap_servers}"]
    topics = {**settings.topics.model_dump(mode="json"), "readings": list(settings.topics.readings)}
    flags += [f"topics.{name}={json.dumps(value)}" for name, value in topics.items()]
    flags += [f"input.values={json.dumps(list(settings.input.values))}"]
    given = [part for flag in flags for part in ("--set", flag)]
    return CliRunner().invoke(app, [*map(str, arguments), *given], catch_exceptions=False)
