"""What the nemesis does to workers, Kafka, Redis and the readings: one function a fault, drawing from `chance`."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_gru.worker import commands
from stream_gru.worker.commands import Command
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Broker, Store

if TYPE_CHECKING:
    from tests.chaos.nemesis import World

_STOPS_WITHIN_S = 15.0
RESETTABLE = tuple(f"reset-{n:05d}" for n in range(5))  # series that may be reset, and are not compared


@dataclass(frozen=True)
class Fault:
    """`place` is what it is done to: two faults at once are done to two places."""

    place: str
    weight: int
    act: Callable[[World, random.Random], Awaitable[None]]


FAULTS: list[Fault] = []
Act = Callable[["World", random.Random], Awaitable[None]]


def fault(place: str, weight: int = 2) -> Callable[[Act], Act]:
    """Register a fault."""

    def register(act: Act) -> Act:
        FAULTS.append(Fault(place, weight, act))
        return act

    return register


# -- workers


@fault("worker", 4)
async def worker_killed(world: World, chance: random.Random) -> None:
    name, away = world.victim(chance), chance.uniform(0, 8)
    world.tell(f"{name}: SIGKILL, back after {away:.1f} s")
    await _killed(world, name, away)


@fault("worker")
async def all_workers_killed(world: World, chance: random.Random) -> None:
    names, away = world.victims(), chance.uniform(0, 8)
    world.tell(f"{' and '.join(names)}: SIGKILL, back after {away:.1f} s")
    await asyncio.gather(*(_killed(world, name, away) for name in names))


@fault("worker", 3)
async def worker_frozen(world: World, chance: random.Random) -> None:
    name = chance.choice(["a", "b"])
    seconds = world.settings.kafka.session_timeout_s + chance.uniform(-3, 8)
    world.tell(f"{name}: SIGSTOP for {seconds:.1f} s")
    await _frozen(world, name, seconds)


@fault("worker", 3)
async def worker_stopped(world: World, chance: random.Random) -> None:
    name, away = world.victim(chance), chance.uniform(0, 5)
    world.tell(f"{name}: SIGTERM, back after {away:.1f} s")
    async with world.away(name):
        await _stopped(world, name)
        await asyncio.sleep(away)
        world.start(name)


@fault("worker", 3)
async def worker_joins_and_leaves(world: World, chance: random.Random) -> None:
    seconds = chance.uniform(1, 15)
    world.tell(f"c: joins, and leaves after {seconds:.1f} s")
    async with world.away("c"):
        world.start("c")
        await asyncio.sleep(seconds)
        await _stopped(world, "c")
        del world.crew.workers["c"]


@fault("alerter")
async def alerter_killed(world: World, chance: random.Random) -> None:
    if "alerter" in world.spared:
        return await alerter_frozen(world, chance)
    away = chance.uniform(0, 8)
    world.tell(f"alerter: SIGKILL, back after {away:.1f} s")
    return await _killed(world, "alerter", away)


@fault("alerter", 1)
async def alerter_frozen(world: World, chance: random.Random) -> None:
    seconds = chance.uniform(5, 15)
    world.tell(f"alerter: SIGSTOP for {seconds:.1f} s")
    await _frozen(world, "alerter", seconds)


async def _killed(world: World, name: str, away: float) -> None:
    async with world.away(name):
        await asyncio.to_thread(world.crew.workers[name].kill)
        await asyncio.sleep(away)
        world.start(name)


async def _frozen(world: World, name: str, seconds: float) -> None:
    worker = world.crew.workers[name]
    worker.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    worker.send_signal(signal.SIGCONT)


async def _stopped(world: World, name: str) -> None:
    await world.crew.listens(name)
    code = await asyncio.to_thread(world.crew.workers[name].stop, _STOPS_WITHIN_S)
    if code:
        world.violation(f"{name} did not stop as it should: code {code}\n{world.crew.workers[name].tail(15)}")


# -- servers


@fault("kafka", 3)
async def kafka_killed(world: World, chance: random.Random) -> None:
    await _server_killed(world, world.broker, "Kafka", chance.uniform(0, 15))


@fault("redis", 3)
async def redis_killed(world: World, chance: random.Random) -> None:
    await _server_killed(world, world.store, "Redis", chance.uniform(0, 15))


@fault("kafka", 1)
async def kafka_stopped(world: World, chance: random.Random) -> None:
    away = chance.uniform(0, 5)
    world.tell(f"Kafka: SIGTERM, back after {away:.1f} s")
    await asyncio.to_thread(world.broker.stop)
    await asyncio.sleep(away)
    await asyncio.to_thread(world.broker.start)


@fault("kafka", 2)
async def kafka_frozen(world: World, chance: random.Random) -> None:
    await _server_frozen(world, world.broker, "Kafka", chance.uniform(3, 25))


@fault("redis", 2)
async def redis_frozen(world: World, chance: random.Random) -> None:
    await _server_frozen(world, world.store, "Redis", chance.uniform(3, 25))


@fault("redis", 3)
async def redis_goes_back_in_time(world: World, chance: random.Random) -> None:
    seconds = chance.uniform(1, 20)
    world.tell(f"Redis: back to what it was {seconds:.1f} s before")
    copy = await asyncio.to_thread(world.store.remember)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(world.store.go_back, copy)


@fault("redis", 2)
async def redis_full(world: World, chance: random.Random) -> None:
    seconds = chance.uniform(3, 25)
    world.tell(f"Redis: full for {seconds:.1f} s")
    await asyncio.to_thread(world.store.configure, maxmemory="1")
    await asyncio.sleep(seconds)
    await asyncio.to_thread(world.store.configure, maxmemory="0")


@fault("kafka", 4)
async def network_to_kafka(world: World, chance: random.Random) -> None:
    await _network(world, world.broker.proxy, "Kafka", chance)


@fault("redis", 4)
async def network_to_redis(world: World, chance: random.Random) -> None:
    await _network(world, world.store.proxy, "Redis", chance)


async def _server_killed(world: World, server: Broker | Store, name: str, away: float) -> None:
    world.tell(f"{name}: SIGKILL, back after {away:.1f} s")
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(away)
    await asyncio.to_thread(server.start)


async def _server_frozen(world: World, server: Broker | Store, name: str, seconds: float) -> None:
    world.tell(f"{name}: SIGSTOP for {seconds:.1f} s")
    server.freeze()
    await asyncio.sleep(seconds)
    server.thaw()


async def _network(world: World, proxy: Proxy, name: str, chance: random.Random) -> None:
    seconds = chance.uniform(3, 25)
    what = chance.choice(["black hole", "black hole", "swallow", "refuse", "delay", "lost replies", "half-close"])
    world.tell(f"network to {name}: {what} for {seconds:.1f} s")
    match what:
        case "black hole":
            proxy.black_hole()
        case "swallow":
            proxy.swallow()
        case "refuse":
            proxy.refuse()
        case "delay":
            proxy.delay(chance.uniform(0.05, 0.4))
        case "lost replies":
            proxy.lose_replies(0.1, chance.randrange(1 << 30))
        case "half-close":
            proxy.half_close()
    await asyncio.sleep(seconds)
    proxy.heal()


# -- readings and operators


@fault("readings", 2)
async def clock_goes_back(world: World, chance: random.Random) -> None:
    """And for a while: everything is late. What comes after it is as far in the future, seen from there."""
    back, seconds = chance.uniform(1, 600), chance.uniform(2, 15)
    world.tell(f"the readings' clock goes back by {back:.0f} s for {seconds:.1f} s")
    world.load.clock_ms -= int(back * 1000)
    await asyncio.sleep(seconds)
    world.load.clock_ms += int(back * 1000)


@fault("operator", 2)
async def report_and_reset(world: World, chance: random.Random) -> None:
    """Only while all is well, so all must answer. No reload: it makes every row another one."""
    series = chance.choice(RESETTABLE)
    world.tell(f"report, and reset of {series}")
    await world.calm("before the commands")
    scorers = len([name for name in world.crew.workers if name != "alerter"])
    for command, ok in ((Command(command="report"), scorers), (Command(command="reset", series=series), 1)):
        replies = await commands.send(world.direct, command, timeout_s=20, expect=scorers)
        said = [(reply.status, reply.detail if reply.status == "error" else "") for reply in replies]
        if len(replies) < scorers or [status for status, _ in said].count("ok") != ok:
            world.violation(f"{command.command} was answered by {len(replies)} of {scorers} workers: {said}")
