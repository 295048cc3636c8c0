"""The `stream-gru` command. Each command lives in a file of its own; this one puts them together."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stream_gru import __version__
from stream_gru.cli import config, serve, state
from stream_gru.errors import StreamGruError

app = typer.Typer(
    name="stream-gru",
    help="Real-time forecasts and anomaly flags for sensor streams: Kafka in, Kafka out, state in Redis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"stream-gru {__version__}")
        raise typer.Exit


app.command("worker")(serve.worker)

_config = typer.Typer(help="Show or check the settings: file, environment and flags together.", no_args_is_help=True)
_config.command("show")(config.show)
_config.command("check")(config.check)
app.add_typer(_config, name="config")

_state = typer.Typer(help="The state in the store.", no_args_is_help=True)
_state.command("reset")(state.reset)
app.add_typer(_state, name="state")


def main() -> None:
    """Run the command; what the user can act on is one message and exit code 2, never a traceback."""
    try:
        app()
    except StreamGruError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
