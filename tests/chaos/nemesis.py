"""Faults at random under load, and a CHECK at the end: ``python -m tests.chaos.nemesis --minutes 60 --seed 1``.

Apache Kafka (`KAFKA_HOME`) and Redis behind proxies, two workers, an alerter, and now and then a third worker. The seed
says which faults come, in which order and how long; when exactly they strike is the machine's affair. After each one
everything must go on within a minute. Several runs may go on side by side.

Ends with 1 when anything did not hold: a process that ended unasked, what did not go on, the CHECK, a secret in a log.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from stream_gru.errors import StreamGruError
from stream_gru.settings import Settings, State
from tests.chaos import servers
from tests.chaos.alerts import alerts
from tests.chaos.faults import FAULTS, RESETTABLE, Fault
from tests.chaos.memory import Lives
from tests.chaos.servers import Broker, Store
from tests.support.check import check
from tests.support.load import Load
from tests.support.progress import progress
from tests.support.workers import Crew, crew

PARTITIONS = 6
SERIES = 200
LINGER_MS = 100  # several runs fit on two cores
END_S = 180  # and at the end, with a backlog and other runs beside it
QUIET_S = (1.0, 6.0)  # between two faults
BESIDE = 0.3  # how often a second fault comes while the first is on
LINES_S = 5.0  # log lines a second, over a life of the run
SECRET = "planted-Xq7vWw2k"  # noqa: S105 - it is what may not be found anywhere
_SAMPLE_S = 10.0
_WATCH_S = 0.5
_LONG_MIN = 30


class Aborted(Exception):  # noqa: N818 - not an error of the nemesis
    """It makes no sense to go on."""


class Readings(Load):
    """Some of the series may be reset."""

    def _key(self) -> bytes:
        n = self.sent % self._series
        return RESETTABLE[n].encode() if n < len(RESETTABLE) else super()._key()


@dataclass
class World:
    """All that the faults act on."""

    settings: Settings  # through the proxies
    direct: Settings  # past them
    broker: Broker
    store: Store
    crew: Crew
    load: Readings
    spared: frozenset[str]  # never killed, so that there is a life long enough to see memory grow
    calm_s: float  # within which everything goes on after a fault
    began: float = field(default_factory=time.monotonic)
    violations: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "nothing")  # seconds to go on, and after what
    _away: set[str] = field(default_factory=set)

    def tell(self, text: str) -> None:
        """A line of the run's log."""
        print(f"{time.monotonic() - self.began:8.1f} s  {text}", flush=True)  # noqa: T201 - it is the product

    def violation(self, text: str) -> None:
        """Something does not hold."""
        self.violations.append(text)
        self.tell(f"VIOLATION: {text}")

    def victims(self) -> list[str]:
        """The workers that may be killed."""
        return [name for name in ("a", "b") if name not in self.spared]

    def victim(self, chance: random.Random) -> str:
        """One of them."""
        return chance.choice(self.victims())

    def start(self, name: str) -> None:
        """Start a worker; `a` has both planes."""
        role = {"a": "all", "alerter": "alerter"}.get(name, "scorer")
        self.crew.start(name, role=role)  # type: ignore[arg-type] # they are roles

    @asynccontextmanager
    async def away(self, name: str) -> AsyncIterator[None]:
        """What happens to this process inside is our doing."""
        self._away.add(name)
        try:
            yield
        finally:
            self._away.discard(name)

    async def watch(self) -> None:
        """Notice who ends unasked, and start it again."""
        while True:
            await asyncio.sleep(_WATCH_S)
            for name, worker in list(self.crew.workers.items()):
                if worker.returncode is not None and name not in self._away:
                    self.violation(f"{name} ended unasked with code {worker.returncode}\n{worker.tail(30)}")
                    self.start(name)

    async def calm(self, after: str, limit_s: float | None = None) -> None:
        """Wait until all are ready and what was sent before is scored. Restarts everything once, then aborts."""
        for attempt in ("", "even after a restart of all, "):
            began, limit_s = time.monotonic(), limit_s or self.calm_s
            problem = "nobody was asked"
            try:
                async with asyncio.timeout(limit_s):
                    while problem:
                        problem = await self._problem() or ""
                        await asyncio.sleep(0.2 if problem else 0)
            except TimeoutError:
                tails = "\n".join(worker.tail(12) for worker in self.crew.workers.values())
                self.violation(f"{attempt}{after}: not calm within {limit_s:g} s: {problem}\n{tails}")
                if attempt:
                    raise Aborted from None
                await self._restart_all()
            else:
                self.slowest = max(self.slowest, (time.monotonic() - began, after))
                return

    async def _problem(self) -> str | None:
        try:
            async with progress(self.direct) as asked:
                ends = await asked.ends()
                for name in list(self.crew.workers):
                    ready, parts = await asyncio.to_thread(self.crew.ready, name)
                    if not ready:
                        return f"{name} is not ready: {parts}"
                deadline = time.monotonic() + 5
                while not await asked.reached(ends):
                    if time.monotonic() > deadline:
                        return f"not scored: {await asked.commits()} of {ends}"
                    await asyncio.sleep(0.2)
        except Exception as error:  # whatever the clients raise, it is asked again
            return f"{type(error).__name__}: {error}"
        return None

    async def _restart_all(self) -> None:
        for name, worker in list(self.crew.workers.items()):
            async with self.away(name):
                await asyncio.to_thread(worker.kill)
                self.start(name)


async def storm(world: World, seconds: float, chance: random.Random) -> int:
    """Faults until the time is over; how many."""
    count, until = 0, time.monotonic() + seconds
    await world.calm("the start", END_S)
    while time.monotonic() < until:
        struck = draw(chance)
        count += len(struck)
        await asyncio.gather(*(one.act(world, random.Random(chance.random())) for one in struck))
        await world.calm(" and ".join(one.act.__name__ for one in struck))
        await asyncio.sleep(chance.uniform(*QUIET_S))
    return count


def draw(chance: random.Random) -> list[Fault]:
    """One fault, or two to different places."""
    (first,) = chance.choices(FAULTS, [one.weight for one in FAULTS])
    beside = [one for one in FAULTS if one.place not in (first.place, "operator")]
    if first.place == "operator" or chance.random() > BESIDE:
        return [first]
    return [first, *chance.choices(beside, [one.weight for one in beside])]


async def run(options: argparse.Namespace, folder: Path, spared: frozenset[str]) -> int:
    """The whole of it; the exit code."""
    minutes, seed = options.minutes, options.seed
    with ExitStack() as stack:
        broker = stack.enter_context(servers.broker(folder / "kafka"))
        store = stack.enter_context(servers.store(folder))
        settings = planted(
            servers.settings_for(broker.through_proxy, store.url, PARTITIONS, direct=broker.direct, linger_ms=LINGER_MS)
        )
        workers = stack.enter_context(crew(settings, folder, forked=False))
        direct = servers.at(settings, broker.direct, store.server.url)
        world = World(
            settings, direct, broker, store, workers, Readings(direct, SERIES, seed=seed), spared, options.calm
        )
        for name in ("a", "b", "alerter"):
            world.start(name)
        lives = Lives()
        tasks = [asyncio.create_task(work) for work in (world.watch(), sampled(world, lives))]
        flowing = asyncio.create_task(world.load.flow(options.rate))
        try:
            faults = await storm(world, minutes * 60, random.Random(seed))
            await asyncio.sleep(2)
            flowing.cancel()
            await asyncio.gather(flowing, return_exceptions=True)
            await world.calm("the end", END_S)
            told = await concluded(world)
        except Aborted:
            faults, told = 0, "aborted"
        finally:
            for task in (*tasks, flowing):
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    world.violation(f"the nemesis itself: {type(result).__name__}: {result}")
        summarise(world, lives, minutes)
        world.tell(
            f"seed {seed}, {minutes:g} min, {faults} faults, {world.load.sent} readings sent; slowest to go on: "
            f"{world.slowest[0]:.1f} s after {world.slowest[1]}; {told}"
        )
        world.tell(f"{len(world.violations)} violations" if world.violations else "everything holds")
        return 1 if world.violations else 0


def planted(settings: Settings) -> Settings:
    """Secrets that nobody asks for, in the places where secrets stand: they may be found in no log."""
    url = settings.state.url.get_secret_value().replace("redis://", f"redis://default:{SECRET}@")
    changes = {
        "state": settings.state.model_copy(update={"url": State(url=url).url}),
        "kafka": settings.kafka.model_copy(update={"sasl_password": SecretStr(SECRET)}),
        "alerts": settings.alerts.model_copy(update={"silence_s": 86_400.0}),
        # Many alerts, and early ones.
        "detector": settings.detector.model_copy(update={"min_n_samples_seen": 40, "sensitivity": 1000.0}),
    }
    return settings.model_copy(update=changes)


async def sampled(world: World, lives: Lives) -> None:
    """Memory of every process, for ever."""
    while True:
        lives.sample({name: worker.pid for name, worker in list(world.crew.workers.items())})
        await asyncio.sleep(_SAMPLE_S)


async def concluded(world: World) -> str:
    """The alerts, the stop of everything, and the CHECK; in words."""
    deadline = time.monotonic() + world.calm_s
    while True:
        found = await alerts(world.direct)
        if not found.missing or time.monotonic() > deadline:
            break
        await asyncio.sleep(1)
    if found.missing or found.extra:
        world.violation(f"{len(found.missing)} alerts are missing, {len(found.extra)} are too many: "
                        f"{sorted(found.missing)[:5]} {sorted(found.extra)[:5]}")  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        for name in list(world.crew.workers):
            await stack.enter_async_context(world.away(name))
        codes = await asyncio.to_thread(world.crew.stop)
        if any(codes.values()):
            world.violation(f"the end: codes {codes}")
        try:
            checked = await check(world.direct, leave_out=RESETTABLE)
        except AssertionError as error:
            world.violation(str(error))
            return "CHECK does not hold"
        for name in list(world.crew.workers):
            del world.crew.workers[name]
    return f"CHECK holds: {checked}; {found.wanted.total()} alerts, {found.repeated} repeated"


def summarise(world: World, lives: Lives, minutes: float) -> None:
    """Logs and memory."""
    for log in sorted(world.crew.folder.glob("*.log")):
        text = log.read_text("utf-8", errors="replace")
        rate = text.count("\n") / (time.monotonic() - world.began)
        world.tell(f"{log.stem}: {rate:.2f} log lines a second")
        if rate > LINES_S:
            world.violation(f"{log.stem} has written {rate:.1f} log lines a second")
        if SECRET in text:
            line = next(line for line in text.splitlines() if SECRET in line)
            world.violation(f"a secret is in the log of {log.stem}: {line.replace(SECRET, '(the secret)')[:500]}")
        for line in text.splitlines():
            if "Traceback" in line:
                world.tell(f"{log.stem}: there is a traceback in its log")
                break
    warm_up_s = min(600.0, minutes * 60 / 3)
    for life in lives.longest():
        world.tell(f"memory of {life.describe(warm_up_s)}")


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 16))
    parser.add_argument("--rate", type=float, default=400, help="readings a second")
    parser.add_argument("--calm", type=float, default=60, help="seconds within which all goes on after a fault")
    parser.add_argument(
        "--spare", action="append", help="a process never to kill; default: a and alerter, from 30 min on"
    )
    parser.add_argument("--folder", type=Path, help="logs and data go here and stay; default: a temporary one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)  # the clients in this process complain about what we do to Kafka
    spared = frozenset(options.spare or (["a", "alerter"] if options.minutes >= _LONG_MIN else []))
    folder = options.folder or Path(tempfile.mkdtemp(prefix="nemesis-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"nemesis: {options.minutes:g} min, seed {options.seed}, {options.rate:g} readings/s, in {folder}")  # noqa: T201
    try:
        return asyncio.run(run(options, folder, spared))
    except StreamGruError as error:
        print(error)  # noqa: T201
        return 2


if __name__ == "__main__":
    sys.exit(main())
