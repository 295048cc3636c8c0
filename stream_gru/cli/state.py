"""`stream-gru state reset`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from stream_gru import settings
from stream_gru.cli.config import Assign, Config, flags
from stream_gru.settings import Settings


def reset(
    config: Config = None,
    assign: Assign = None,
    topic: Annotated[list[str] | None, typer.Option(help="Only this readings topic; may be repeated.")] = None,
    partition: Annotated[list[int] | None, typer.Option(help="Only this partition; may be repeated.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget the stored state of the group's partitions. Stop the workers first.

    The next start rebuilds it from what Kafka retains, without publishing again what was committed.
    """
    loaded = settings.load(config, flags(assign))
    names = topic or list(loaded.topics.readings)
    if not yes:
        typer.confirm(f"Forget the state of {', '.join(names)} in group {loaded.kafka.group_id}?", abort=True)
    for place, rows in asyncio.run(_delete(loaded, names, partition)).items():
        typer.echo(f"{place}: {rows} rows forgotten")


async def _delete(loaded: Settings, topics: list[str], partitions: list[int] | None) -> dict[str, int]:
    from stream_gru import stores
    from stream_gru.errors import BrokerError
    from stream_gru.stores import PartitionId
    from stream_gru.worker.cluster import Cluster

    cluster = await Cluster.connect(loaded.kafka)
    store = stores.from_settings(loaded.state)
    try:
        await store.open()
        found = await cluster.topics(topics)
        if missing := [name for name in topics if name not in found]:
            raise BrokerError(f"there is no topic {', '.join(missing)}")
        ids = [
            PartitionId(loaded.kafka.group_id, name, n)
            for name in topics
            for n in (range(found[name].partitions) if partitions is None else partitions)
        ]
        return {str(at): await store.delete(at) for at in ids}
    finally:
        await store.close()
        await cluster.close()
