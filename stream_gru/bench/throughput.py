"""`stream-gru bench throughput`: a worker end to end, the engine alone, and the two yardsticks, in one run."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_gru.columns import Readings
from stream_gru.errors import StreamGruError
from stream_gru.kafka import aiokafka_options
from stream_gru.settings import Settings, Topics, changed, environment
from stream_gru.tools import embedded, topics
from stream_gru.tools.feed import Feed
from stream_gru.tools.processes import Child, wait_until

PARTITIONS = 6
_BATCH = 8192
_WARM_UP = 0.25  # of the outputs: the first ones are each series' first, and the worker is still starting
_SCRAPE_S = 0.3  # often enough; each scrape costs the worker some milliseconds

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much of what."""

    series: int = 20_000
    readings: int = 1_600_000
    rate: int = 5_000
    rate_seconds: float = 20.0
    loop_events: int = 150_000
    obvious_events: int = 4_000
    bundle: Path | None = None


@contextmanager
def servers(kafka: str | None, redis: str | None) -> Iterator[tuple[str, str]]:
    """(bootstrap servers, URL): those given, else started for the occasion."""
    with TemporaryDirectory(prefix="stream-gru-bench-", ignore_cleanup_errors=True) as folder:
        if kafka and redis:
            yield kafka, redis
        elif kafka:
            with embedded.redis(Path(folder, "redis")) as url:
                yield kafka, url
        elif redis:
            with embedded.kafka(Path(folder, "kafka")) as brokers:
                yield brokers, redis
        else:
            with embedded.kafka(Path(folder, "kafka")) as brokers, embedded.redis(Path(folder, "redis")) as url:
                yield brokers, url


def run(plan: Plan, kafka: str | None, redis: str | None, say: Say) -> dict[str, Any]:
    """All of it; the object that ``--json`` prints."""
    with TemporaryDirectory(prefix="stream-gru-bench-") as folder, servers(kafka, redis) as (brokers, url):
        settings = _settings(brokers, url, plan.bundle)
        topics.create(settings, PARTITIONS)
        say(f"filling {settings.topics.readings[0]} with {plan.readings:,} readings of {plan.series:,} series")
        asyncio.run(_fill(settings, plan.series, plan.readings))
        say("a worker, end to end")
        rate, stages = _end_to_end(settings, plan.readings, Path(folder))
        say("a Faust worker that only iterates")
        loop = _yardstick(Path(folder), "loop", settings, plan.loop_events)
        say("the obvious implementation")
        obvious = _yardstick(Path(folder), "obvious", settings, plan.obvious_events)
        say(f"latency at {plan.rate:,} readings a second")
        paced = _settings(brokers, url, plan.bundle)
        topics.create(paced, PARTITIONS)
        p50, p99 = _latency(paced, plan, Path(folder))
    say("the engine alone")
    engine_us = _engine(plan)
    say("memory by number of series")
    memory = _memory(Path(folder), plan.bundle)
    return {
        "readings_per_s": round(rate),
        "engine_us_per_reading": round(engine_us, 2),
        "stages": stages,
        "faust_loop_per_s": round(loop),
        "obvious_per_s": round(obvious, 1),
        "ratio_faust_loop": round(rate / loop, 2),
        "ratio_obvious": round(rate / obvious, 1),
        "latency_p50_ms": round(p50, 1),
        "latency_p99_ms": round(p99, 1),
        **memory,
    }


def _settings(brokers: str, url: str, bundle: Path | None) -> Settings:
    unique = uuid4().hex[:6]
    names = {f"topics.{name}": f"bench-{unique}-{name}" for name in Topics.model_fields}
    changes = {
        "role": "scorer",
        "kafka.bootstrap_servers": brokers,
        "kafka.group_id": f"bench-{unique}",
        **names,
        "state.url": url,
        "metrics.port": embedded.free_port(),
        "model.bundle": bundle,
    }
    return changed(Settings(), changes)


@contextmanager
def _worker(settings: Settings, folder: Path) -> Iterator[Child]:
    command = [sys.executable, "-m", "stream_gru", "worker"]
    child = Child(command, folder / f"{settings.kafka.group_id}.log", environment(settings))
    try:
        yield child
    finally:
        child.stop()


async def _fill(settings: Settings, series: int, readings: int) -> None:
    """Every series in turn, with a value that has a daily cycle and noise."""
    rng = np.random.default_rng(0)
    async with Feed(settings, [f"plant-{i % 20:02d}/sensor-{i:06d}" for i in range(series)]) as feed:
        start = int(time.time() * 1000) - readings // series * 60_000
        for first in range(0, readings, _BATCH):
            n = np.arange(first, min(first + _BATCH, readings))
            which, tick = n % series, n // series
            value = 20 + 5 * np.sin(tick / 60 + which) + rng.normal(0, 0.3, len(n))
            await feed.send(which, start + tick * 60_000, np.round(value, 3)[:, None])


def _end_to_end(settings: Settings, readings: int, folder: Path) -> tuple[float, dict[str, float]]:
    """(readings a second, microseconds of a reading by stage), between a quarter of the outputs and the last one."""
    with _worker(settings, folder) as child:
        url = f"http://{settings.metrics.host}:{settings.metrics.port}/metrics"
        early: dict[str, float] = {}
        late: dict[str, float] = {}

        def produced(goal: float, into: dict[str, float]) -> bool:
            time.sleep(_SCRAPE_S)
            into.clear()
            into.update(_scrape(url), now=time.perf_counter())
            return into.get("stream_gru_model_datapoints_produced_total", 0) >= goal

        wait_until(lambda: produced(readings * _WARM_UP, early), "a quarter of the outputs", 300, child)
        wait_until(lambda: produced(readings, late), "all outputs", 600, child)

    def gained(name: str) -> float:
        return late.get(name, 0) - early.get(name, 0)

    count = gained("stream_gru_model_datapoints_produced_total")
    pattern = re.compile(r'stream_gru_stage_duration_seconds_sum\{stage="(\w+)"\}')
    stages = {
        found[1]: round(gained(name) / count * 1e6, 2)
        for name in late
        if (found := pattern.fullmatch(name)) and found[1] not in ("queue", "publish")  # these wait, they don't work
    }
    stages["cpu"] = round(gained("process_cpu_seconds_total") / count * 1e6, 2)
    return count / (late["now"] - early["now"]), stages


def _scrape(url: str) -> dict[str, float]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own worker's http address
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def _yardstick(folder: Path, kind: str, settings: Settings, events: int) -> float:
    """Events a second of one of the programs in `yardsticks`."""
    command = [sys.executable, "-m", "stream_gru.bench.yardsticks", kind, settings.kafka.bootstrap_servers]
    command += [settings.topics.readings[0], f"{settings.kafka.group_id}-{kind}", str(events)]
    if kind == "obvious":
        command.append(settings.topics.alerts)
    log = folder / f"{kind}.log"
    child = Child(command, log, environment(settings))
    try:
        child.wait(120)
    finally:
        child.stop()
    for line in reversed(log.read_text("utf-8").splitlines()):
        if line.startswith('{"events"'):
            result = json.loads(line)
            return float(result["events"] / result["seconds"])
    raise StreamGruError(f"the yardstick {kind!r} ended without a figure\n{child.tail()}")


def _latency(settings: Settings, plan: Plan, folder: Path) -> tuple[float, float]:
    """(p50, p99) in ms, from just before a reading is produced until a consumer has its forecast."""
    with _worker(settings, folder) as child:
        address = f"http://{settings.metrics.host}:{settings.metrics.port}/metrics"
        key = "stream_gru_reader_partitions"
        wait_until(lambda: _scrape(address).get(key, 0) == PARTITIONS, "the worker's partitions", 60, child)
        waited = asyncio.run(_paced(settings, plan))
    return float(np.percentile(waited, 50)), float(np.percentile(waited, 99))


async def _paced(settings: Settings, plan: Plan) -> np.ndarray[Any, Any]:
    """Produce at the plan's rate and read the forecasts beside; each reading's wait in ms, without the first 5 s."""
    total, per_tick, tick_s = int(plan.rate * plan.rate_seconds), plan.rate // 100, 0.01
    consumer = AIOKafkaConsumer(**aiokafka_options(settings.kafka), auto_offset_reset="earliest", fetch_max_wait_ms=50)
    await consumer.start()
    consumer.assign([TopicPartition(settings.topics.forecasts, p) for p in range(PARTITIONS)])
    await consumer.seek_to_beginning()
    waits: list[int] = []

    async def read() -> None:
        stamp = re.compile(rb'"timestamp":(\d+)')
        while len(waits) < total:
            polled = await consumer.getmany(timeout_ms=200)
            now = int(time.time() * 1000)
            for records in polled.values():
                waits.extend(now - int(found[1]) for r in records if (found := stamp.search(r.value)))

    reading = asyncio.create_task(read())
    async with Feed(settings, [f"sensor-{i:06d}" for i in range(plan.series)]) as feed:
        started, sent = time.perf_counter(), 0
        while sent < total:
            now = np.full(per_tick, int(time.time() * 1000))
            which = np.arange(sent, sent + per_tick) % plan.series
            await feed.send(which, now, np.sin(which + sent / plan.rate)[:, None])
            sent += per_tick
            await asyncio.sleep(max(0.0, started + sent / plan.rate - time.perf_counter(), tick_s / 10))
    await asyncio.wait_for(reading, 60)
    await consumer.stop()
    return np.array(waits[min(5 * plan.rate, total // 2) :])


def _engine(plan: Plan) -> float:
    """Microseconds of a reading in `Stepper.step` alone, on this process' one thread."""
    import torch

    from stream_gru.engine.stepper import Stepper

    torch.set_num_threads(1)
    engine = Stepper(plan.bundle, capacity=max(plan.series, 2 * _BATCH))
    engine.arena.open(1)
    slots = engine.arena.insert(1, [b"sensor-%06d" % i for i in range(plan.series)])
    rng, spent, count = np.random.default_rng(0), 0.0, 0
    for tick in range(30):
        for first in range(0, plan.series, _BATCH):
            some = slots[first : first + _BATCH]
            n = len(some)
            readings = Readings(some, np.full(n, tick), np.full(n, tick * 60_000), rng.normal(size=(n, 1)))
            began = time.perf_counter()
            engine.step(readings)
            if tick >= 10:
                spent, count = spent + time.perf_counter() - began, count + n
    return spent / count * 1e6


def _memory(folder: Path, bundle: Path | None) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "stream_gru.bench.memory", *([] if bundle is None else [str(bundle)])]
    child = Child(command, folder / "memory.log")
    child.wait(300)
    measured: dict[str, float] = json.loads((folder / "memory.log").read_text("utf-8").splitlines()[-1])
    return measured
