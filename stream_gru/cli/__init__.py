"""The `stream-gru` command. Each command lives in a file of its own; this one puts them together."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from stream_gru import __version__
from stream_gru.cli import (
    advise,
    backtest,
    bench,
    calibrate,
    command,
    compare,
    config,
    demo,
    evaluate,
    gates,
    replay,
    serve,
    simulate,
    state,
    tail,
    topics,
    train,
    tune,
    validate,
)
from stream_gru.errors import StreamGruError
from stream_gru.process.logs import LIBRARIES

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


_COMMANDS: tuple[Callable[..., None], ...] = (
    demo.demo,
    serve.worker,
    simulate.simulate,
    replay.replay,
    tail.tail,
    backtest.backtest,
    evaluate.evaluate,
    gates.gates,
    calibrate.calibrate,
    train.train,
    validate.validate,
    tune.tune,
    compare.compare,
    advise.advise,
)
_GROUPS: tuple[tuple[str, str, tuple[Callable[..., None], ...]], ...] = (
    ("config", "Show or check the settings: file, environment and flags together.", (config.show, config.check)),
    ("topics", "Make the topics that a deployment needs, or check them.", (topics.create, topics.check)),
    ("state", "The state in the store.", (state.reset,)),
    ("command", "Ask running workers.", (command.reset, command.reload, command.report)),
    ("bench", "Measure, beside yardsticks of the same run.", (bench.throughput, bench.bundles, bench.gates)),
)

for _command in _COMMANDS:
    app.command(_command.__name__)(_command)
for _name, _help, _commands in _GROUPS:
    _group = typer.Typer(help=_help, no_args_is_help=True)
    for _command in _commands:
        _group.command(_command.__name__)(_command)
    app.add_typer(_group, name=_name)


def main() -> None:
    """Run the command; what the user can act on is one message and exit code 2, never a traceback."""
    for name in LIBRARIES:  # they would say in their words, and more than once, what the message says
        logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        app()
    except StreamGruError as error:
        message = str(error)
    except OSError as error:
        if error.filename is None:
            raise  # no file of the user's
        message = f"{error.filename}: {error.strerror}"
    else:
        return
    typer.secho(f"error: {message}", fg="red", err=True)
    sys.exit(2)
