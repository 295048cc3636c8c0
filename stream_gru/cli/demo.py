"""`stream-gru demo`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_gru import settings
from stream_gru.cli.config import Assign, Bundle, Config, flags
from stream_gru.cli.running import until_stopped

if TYPE_CHECKING:
    from stream_gru.tools.demo import Demo


def demo(
    kafka: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Your Kafka; else KAFKA_HOME's, else the embedded one.")
    ] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Your Redis; else one is started.")] = None,
    rate: Annotated[float, typer.Option(min=1, help="Readings a second over all sensors.")] = 2000.0,
    series: Annotated[int, typer.Option(min=1, help="Sensors.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same readings.")] = 0,
    duration: Annotated[float | None, typer.Option(help="Seconds; without it, until Ctrl-C.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="No view; one JSON object with the figures as the last line.")
    ] = False,
    bundle: Bundle = None,
    config: Config = None,
    assign: Assign = None,
) -> None:
    """Simulated sensors, a broker, a Redis, a worker and a live view of what it finds, on free ports.

    Exit code 1 when a reading has no output at the end of --duration.
    """
    if as_json and duration is None:
        raise typer.BadParameter("--json needs --duration")
    from rich.console import Console

    from stream_gru.tools import demo as demos
    from stream_gru.tools.stage import stage

    loaded = settings.load(config, flags(assign, bundle))
    console = Console(stderr=True)
    simulation = demos.simulation(rate, series, seed, duration, loaded.detector.min_n_samples_seen)
    try:
        with stage(loaded, kafka, redis, lambda text: console.print(f"{text} ...", style="dim")) as on:
            running = demos.Demo(on, simulation)
            finished = until_stopped(_run(running, as_json))
    except KeyboardInterrupt:  # while things were being started or stopped
        raise typer.Exit(0) from None
    summary = running.summary()
    _print(summary, as_json)
    if finished and summary["lag"]:
        missing = ", ".join(running.score.missing()) or "none that Kafka still has"
        console.print(f"{summary['lag']} readings have no output: {missing}", style="red")
        raise typer.Exit(1)


async def _run(running: Demo, as_json: bool) -> bool:
    if as_json:
        await running.run()
        return True
    from rich.live import Live

    from stream_gru.tools.view import View

    with Live(View(running), refresh_per_second=4):
        await running.run()
    return True


def _print(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for name, value in summary.items():
        typer.echo(f"{name.replace('_', ' '):16} {value:>12}" if value is not None else f"{name:16}            –")
