"""`stream-gru state reset`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from stream_gru import settings
from stream_gru.cli.config import Assign, Config, flags
from stream_gru.settings import Settings

if TYPE_CHECKING:
    from aiokafka import TopicPartition


def reset(
    config: Config = None,
    assign: Assign = None,
    topic: Annotated[list[str] | None, typer.Option(help="Only this readings topic; may be repeated.")] = None,
    partition: Annotated[list[int] | None, typer.Option(help="Only this partition; may be repeated.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even while a worker has them: it begins them anew.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget the stored state of the group's partitions. If all are meant, also the model of the last `command reload`.

    Stop the workers first. The next start rebuilds it from what Kafka retains, without publishing again what was
    committed.
    """
    loaded = settings.load(config, flags(assign))
    asyncio.run(_reset(loaded, topic or list(loaded.topics.readings), partition, force=force, yes=yes))


async def _reset(loaded: Settings, topics: list[str], partitions: list[int] | None, *, force: bool, yes: bool) -> None:
    from stream_gru import stores
    from stream_gru.stores import PartitionId

    group = loaded.kafka.group_id
    meant = await _meant(loaded, topics, partitions)
    if not force:
        await _unowned(loaded, meant)
    if not yes:
        which = f"{len(meant)} partitions of {', '.join(topics)}"
        typer.confirm(f"Forget the state of {which} in group {group}?", abort=True)
    store = stores.from_settings(loaded.state)
    try:
        await store.open()
        for tp in meant:
            at = PartitionId(group, tp.topic, tp.partition)
            typer.echo(f"{at}: {await store.delete(at)} rows forgotten")
        if partitions is None and set(topics) >= set(loaded.topics.readings):
            chosen = await store.chosen(group, files=False)
            await store.forget(group)
            if chosen is not None:
                typer.echo(f"{group}: serves what model.bundle names again, not {chosen.name}")
    finally:
        await store.close()


async def _meant(loaded: Settings, topics: list[str], partitions: list[int] | None) -> list[TopicPartition]:
    """The partitions that are asked for. Raises `BrokerError` for one that is not there."""
    from aiokafka import TopicPartition

    from stream_gru.errors import BrokerError
    from stream_gru.kafka.cluster import Cluster

    cluster = await Cluster.connect(loaded.kafka)
    try:
        found = await cluster.topics(topics)
    finally:
        await cluster.close()
    if missing := [name for name in topics if name not in found]:
        known = ", ".join(loaded.topics.readings)
        raise BrokerError(f"there is no topic {', '.join(missing)}; the settings' topics.readings are {known}")
    for name in topics:
        last = found[name].partitions - 1
        if wrong := sorted(n for n in partitions or () if not 0 <= n <= last):
            raise BrokerError(f"topic {name} has no partition {', '.join(map(str, wrong))}; it has 0 to {last}")
    return [
        TopicPartition(name, n)
        for name in topics
        for n in (range(found[name].partitions) if partitions is None else sorted(set(partitions)))
    ]


async def _unowned(loaded: Settings, meant: list[TopicPartition]) -> None:
    """Raises `BrokerError` where a worker has any of these partitions, or may have."""
    from stream_gru.errors import BrokerError
    from stream_gru.tools.owners import members

    having = {
        member.name: tp for member in await members(loaded.kafka) for tp in reversed(meant) if member.may_have(tp)
    }
    if having:
        name, tp = next(iter(having.items()))
        wait = f"{loaded.kafka.session_timeout_s:g} s after one that was killed"
        raise BrokerError(
            f"a worker of group {loaded.kafka.group_id} has {tp.topic}-{tp.partition} ({name}; {len(having)} in all). "
            f"Stop the workers first, or wait until the group has given it up ({wait}); --force resets it all the same"
        )
