"""Workers as processes on real servers, alone or under a load."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stream_gru.errors import StreamGruError
from stream_gru.settings import Settings, environment
from stream_gru.tools.embedded import free_port
from stream_gru.tools.processes import Child
from tests.support import pages
from tests.support.forked import Worker, work
from tests.support.load import Load
from tests.support.progress import drained, scores
from tests.support.waiting import eventually

WORKER = ("-m", "stream_gru", "worker")
_GRACE_S = 20.0  # for a stop; how long it may take is checked by the tests that are about it
Role = Literal["all", "scorer", "alerter"]


@dataclass
class Crew:
    """Some workers with the same settings, each a process of its own."""

    settings: Settings
    folder: Path
    role: Role = "scorer"
    forked: bool = True  # not each of them a Python that starts from nothing
    workers: dict[str, Child] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)  # of /ready

    def start(
        self,
        name: str,
        *,
        role: Role | None = None,
        settings: Settings | None = None,
        main: Callable[[], None] | None = None,
        instance: str | None = None,
        **variables: str,
    ) -> Child:
        """Start or start again the worker of this name; with static membership, as the same member or as `instance`.

        It may differ from the others: in its settings, in what it does (always in a fork), in environment variables.
        """
        if name in self.workers:
            self.workers[name].kill()
        chosen = settings or self.settings
        kafka, metrics = chosen.kafka, chosen.metrics
        if kafka.group_instance_id:
            kafka = kafka.model_copy(update={"group_instance_id": f"{kafka.group_instance_id}-{instance or name}"})
        self.ports[name] = metrics.port or free_port()
        metrics = metrics.model_copy(update={"port": self.ports[name]})
        update = {"role": role or self.role, "kafka": kafka, "metrics": metrics}
        around = {**environment(chosen.model_copy(update=update)), **variables}
        log = self.folder / f"{name}.log"
        forked = self.forked or main is not None
        worker = Worker(log, around, main or work) if forked else Child([sys.executable, *WORKER], log, around)
        self.workers[name] = worker
        return worker

    def log(self, name: str) -> str:
        """What the worker has printed over all its lives."""
        return (self.folder / f"{name}.log").read_text("utf-8", errors="replace")

    def ready(self, name: str) -> tuple[bool, dict[str, str]]:
        """Whether /ready answers 200, and the parts that it names."""
        return pages.ready(self.ports[name])

    async def ready_within(self, name: str, seconds: float, *, wanted: bool = True) -> float:
        """How long it took until /ready answered 200, or 503 where that is wanted."""
        began = time.monotonic()
        while (said := await asyncio.to_thread(self.ready, name))[0] is not wanted:
            assert time.monotonic() - began < seconds, f"{name}: {said}\n{self.workers[name].tail(30)}"
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    async def share(self, *names: str, partitions: int) -> None:
        """Wait until each of them has so many partitions: until then somebody is still on the way into the group."""
        deadline = time.monotonic() + 60
        for name in names:
            while (owned := await asyncio.to_thread(self._owned, name)) != partitions:
                assert time.monotonic() < deadline, f"{name} owns {owned}\n{self.workers[name].tail()}"
                await asyncio.sleep(0.1)

    def _owned(self, name: str) -> float | None:
        try:
            _, page = pages.get(self.ports[name], "/metrics")
        except OSError:
            return None
        found = re.search(r"^stream_gru_reader_partitions (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else None

    async def listens(self, name: str) -> None:
        """Wait until it answers at all: a SIGTERM before that finds no handler."""
        worker, deadline = self.workers[name], time.monotonic() + 60
        while "process" in (await asyncio.to_thread(self.ready, name))[1]:
            assert worker.returncode is None, f"{name} ended with code {worker.returncode}\n{worker.tail()}"
            assert time.monotonic() < deadline, f"{name} does not listen\n{worker.tail()}"
            await asyncio.sleep(0.1)

    def stop(self) -> dict[str, int]:
        """SIGTERM to all; the return codes."""
        for worker in self.workers.values():
            worker.send_signal(signal.SIGTERM)
        return {name: _ended(worker) for name, worker in self.workers.items()}


def _ended(worker: Child) -> int:
    try:
        return worker.wait(_GRACE_S)
    except StreamGruError:
        return worker.kill()


@contextmanager
def crew(settings: Settings, folder: Path, *names: str, role: Role = "scorer", forked: bool = True) -> Iterator[Crew]:
    """Workers that are gone at the end whatever happens."""
    made = Crew(settings, folder, role, forked)
    try:
        for name in names:
            made.start(name)
        yield made
    finally:
        for worker in made.workers.values():
            worker.kill()


async def under_way(load: Load, direct: Settings, readings: float) -> None:
    """Wait until so many more are sent, and scored: what comes next happens under load."""
    enough = load.sent + readings
    await eventually(lambda: load.sent >= enough, "the load", 60)
    await scores(direct, 60)


@contextlib.asynccontextmanager
async def loaded(
    workers: Crew, direct: Settings, *names: str, series: int = 500, rate: float = 600
) -> AsyncIterator[Load]:
    """Readings flow to workers that have started; at the end everything is scored and everybody stops well.

    `direct` is how we reach the servers, past any proxy of the workers.
    """
    load = Load(direct, series)
    await load.send(2 * series)
    for name in names:
        workers.start(name)
    await drained(direct, workers.workers[names[0]])
    flowing = asyncio.create_task(load.flow(rate))
    try:
        await under_way(load, direct, rate / 2)
        yield load
    finally:
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
    await drained(direct, workers.workers[names[0]], 90)
    for name in workers.workers:
        await workers.listens(name)  # one that was just started does not know signals yet
    stopped = workers.stop()
    assert set(stopped.values()) == {0}, stopped
