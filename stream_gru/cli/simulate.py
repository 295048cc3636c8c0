"""`stream-gru simulate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_gru import settings
from stream_gru.cli import outputs
from stream_gru.cli.config import Assign, Config, flags
from stream_gru.cli.running import until_stopped

if TYPE_CHECKING:
    from stream_gru.training.fleet import Label


def simulate(
    config: Config = None,
    assign: Assign = None,
    rate: Annotated[float, typer.Option(help="Readings a second over the whole fleet.")] = 1000.0,
    series: Annotated[int, typer.Option(min=1, help="Sensors.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same readings.")] = 0,
    duration: Annotated[float | None, typer.Option(help="Seconds; without it, until Ctrl-C.")] = None,
    anomalies_per_hour: Annotated[float, typer.Option(min=0, help="Over the whole fleet.")] = 60.0,
    speedup: Annotated[
        float, typer.Option(help="How much faster than the wall clock the sensors' own clock runs.")
    ] = 1.0,
    labels: Annotated[
        Path | None, typer.Option(help="Append the injected anomalies to this file: series, kind, start, end.")
    ] = None,
) -> None:
    """Send the readings of a fleet of sensors: trends, cycles, noise, drifts, gaps, and anomalies that are labelled."""
    import msgspec

    from stream_gru.tools.simulate import Simulation
    from stream_gru.tools.simulate import simulate as run

    loaded = settings.load(config, flags(assign))
    if labels is not None:
        outputs.file(labels, "--labels")
    simulation = Simulation(rate, series, seed, duration, anomalies_per_hour, speedup)
    sent: int | None = None

    def note(some: Sequence[Label]) -> None:
        if labels is not None and some:
            with labels.open("ab") as file:
                file.writelines(msgspec.json.encode(label) + b"\n" for label in some)

    def count(so_far: int, _last: int) -> None:
        nonlocal sent
        if sent is None:  # now that Kafka takes them
            typer.echo(f"{series} sensors, {rate:g} readings/s to {loaded.topics.readings[0]}", err=True)
        sent = so_far

    begin = time.monotonic()
    until_stopped(run(loaded, simulation, note, count))
    passed = time.monotonic() - begin
    sent = sent or 0
    typer.echo(f"{sent} readings in {passed:.1f} s, {sent / passed:.0f}/s", err=True)
