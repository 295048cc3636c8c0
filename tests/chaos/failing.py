"""`main` of a worker that dies, raises or loses a task at a chosen point.

``FAIL_AT`` names the point, ``FAIL_WHEN`` a file that is there when it is time. What is patched is named as the product
names it, so that a renamed part fails here and not in silence.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer

from stream_gru.engine.stepper import Stepper
from stream_gru.kafka.commits import Commits
from stream_gru.protocol.partition import Partition
from stream_gru.stores.redis import RedisStore
from stream_gru.worker.encoder import Encoder
from stream_gru.worker.source import ReadingSource
from tests.support.forked import work

_ON_ITS_WAY_S = 0.003  # less than a broker takes to answer, mostly


class Sentence:
    """Death at the first pass after the file FAIL_WHEN is there.

    Who waits for some progress before it makes that file kills workers as chance does. Workers that die one after the
    other at one record have that record taken for the cause.
    """

    def __init__(self, file: str) -> None:
        self._file = file

    @property
    def due(self) -> bool:
        """Whether the next pass is the last."""
        return os.path.exists(self._file)

    def __call__(self) -> None:
        if self.due:
            os.kill(os.getpid(), signal.SIGKILL)


def scored(die: Sentence) -> None:
    """After the step, before the outputs are encoded."""
    _before(Encoder, "encode", die)


def produced(die: Sentence) -> None:
    """The outputs are on their way to Kafka, and not acknowledged."""
    send_batch = AIOKafkaProducer.send_batch

    async def sending(self: AIOKafkaProducer, *args: Any, **options: Any) -> Any:
        future = await send_batch(self, *args, **options)
        asyncio.get_running_loop().call_later(_ON_ITS_WAY_S, die)
        return future

    AIOKafkaProducer.send_batch = sending


def acked(die: Sentence) -> None:
    """Kafka has acknowledged them, and the partition does not know it yet."""
    _before(Partition, "acknowledged", die)


def mid_commit(die: Sentence) -> None:
    """The first chunk of a checkpoint is in the store, the last one isn't."""
    write: Any = RedisStore.write

    async def first_chunk(self: RedisStore, partition: Any, writes: Any) -> Any:
        if len(writes) > 1 and die.due:
            await write(self, partition, writes[:1])
            die()
        return await write(self, partition, writes)

    RedisStore.write = first_chunk  # type: ignore[method-assign]


def commit_without_reply(die: Sentence) -> None:
    """The store has taken the checkpoint, and the worker never hears of it."""
    _after(RedisStore, "write", die)


def before_kafka_commit(die: Sentence) -> None:
    """The store has confirmed, and Kafka is not told."""
    _before(Commits, "commit", die)


def raises(die: Sentence) -> None:
    """One step of a hundred raises."""
    step = Stepper.step
    chance = random.Random(os.environ["FAIL_SEED"])

    def stepping(self: Stepper, readings: Any) -> Any:
        if chance.random() < 0.01:
            print(f"raising at {time.time()}", file=sys.stderr, flush=True)  # noqa: T201 - the test reads it
            raise RuntimeError("a step failed")
        return step(self, readings)

    Stepper.step = stepping  # type: ignore[method-assign]


def source_cancelled(die: Sentence) -> None:
    """The task that takes readings in is cancelled by somebody, so many seconds after its start."""
    run = ReadingSource.run

    async def running(self: ReadingSource) -> None:
        task = asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            print(f"cancelled at {time.time()}", file=sys.stderr, flush=True)  # noqa: T201 - the test reads it
            task.cancel()

        asyncio.get_running_loop().call_later(float(os.environ["FAIL_AFTER"]), cancel)
        await run(self)

    ReadingSource.run = running  # type: ignore[method-assign]


KILLS: dict[str, Callable[[Sentence], None]] = {
    point.__name__: point for point in (scored, produced, acked, mid_commit, commit_without_reply, before_kafka_commit)
}
POINTS = KILLS | {point.__name__: point for point in (raises, source_cancelled)}


def _before(owner: type, name: str, die: Sentence) -> None:
    original = getattr(owner, name)

    def dying(*args: Any, **options: Any) -> Any:
        die()
        return original(*args, **options)

    setattr(owner, name, dying)


def _after(owner: type, name: str, die: Sentence) -> None:
    original = getattr(owner, name)

    async def dying(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        die()
        return result

    setattr(owner, name, dying)


def main() -> None:
    """For `tests.support.forked.Worker`."""
    POINTS[os.environ["FAIL_AT"]](Sentence(os.environ.get("FAIL_WHEN", "")))
    work()
