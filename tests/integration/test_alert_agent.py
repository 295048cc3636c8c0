"""The alerter as a process on a real broker: once each, through crashes, silence and rebalances."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from stream_gru.alerts import agent, life
from stream_gru.alerts.agent import BATCH_RECORDS
from stream_gru.kafka import aiokafka_options, kafka_python_options
from stream_gru.kafka.names import changelog_topic
from stream_gru.metrics import Health, Metrics
from stream_gru.settings import Alerts, Settings, environment
from stream_gru.tools.embedded import EmbeddedKafka, KafkaServer, free_port
from stream_gru.tools.processes import Child, wait_until
from stream_gru.tools.topics import create
from tests.support.alert_records import payload
from tests.support.forked import Worker
from tests.support.pages import get
from tests.support.waiting import eventually

Start = Callable[..., Awaitable[Child]]
CHAOS = pytest.mark.chaos


@pytest.fixture
def start(settings: Settings, kafka: KafkaServer, tmp_path: Path) -> Iterator[Start]:
    """Start an alerter, by default the only one; it is gone at the end of the test."""
    children: list[Child] = []

    async def starting(name: str = "only", *, static: bool = False, **changes: Any) -> Child:
        # The embedded broker never forgets a member that has gone without a word: the next one takes its name.
        names = {"group_instance_id": name if static or isinstance(kafka, EmbeddedKafka) else None}
        changes["kafka"] = settings.kafka.model_copy(update=names)
        alone = settings.model_copy(update={"role": "alerter", **changes})
        log = tmp_path / f"{len(children)}.log"
        child = Worker(log, environment(alone))
        children.append(child)
        await asyncio.to_thread(wait_until, lambda: "alerts: ready" in log.read_text(), "the alerter", 30, child)
        return child

    yield starting
    for child in children:
        child.kill()


class Topics:
    """Writes anomalies and reads alerts."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer) -> None:
        self._settings = settings
        self._producer = producer
        self._consumer = consumer
        self.alerts: list[dict[str, Any]] = []
        self.told_at: list[int] = []  # Kafka's timestamps of them

    async def write(self, *values: bytes | None, partition: int = 0) -> int:
        """Kafka's timestamp of the last one."""
        topic = self._settings.topics.anomalies
        sent = [await self._producer.send(topic, value, b"key", partition) for value in values]
        return int((await asyncio.gather(*sent))[-1].timestamp)

    async def forget(self) -> None:
        """Learn how many partitions there are now."""
        await self._producer.client.force_metadata_update()

    async def read(self, enough: int, timeout_s: float = 20.0) -> list[tuple[str, str]]:
        """(id, status) of all alerts so far, once there are `enough`."""
        deadline = time.monotonic() + timeout_s
        while len(self.alerts) < enough and time.monotonic() < deadline:
            for records in (await self._consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    alert = msgspec.json.decode(record.value)
                    assert record.key.decode() == alert["id"]
                    self.alerts.append(alert)
                    self.told_at.append(record.timestamp)
        return [(alert["id"], alert["status"]) for alert in self.alerts]

    async def quiet(self, seconds: float = 1.0) -> list[tuple[str, str]]:
        """The same, having waited for one alert too many."""
        return await self.read(len(self.alerts) + 1, seconds)


@pytest.fixture
async def topics(settings: Settings) -> AsyncIterator[Topics]:
    options = aiokafka_options(settings.kafka)
    async with (
        AIOKafkaProducer(**options, linger_ms=5) as producer,
        AIOKafkaConsumer(settings.topics.alerts, **options, auto_offset_reset="earliest") as consumer,
    ):
        yield Topics(settings, producer, consumer)


async def test_each_run_is_told_once(start: Start, topics: Topics) -> None:
    await start()
    await topics.write(payload(0, alert=True), payload(1), b"rubbish", None, payload(0, alert=True))
    await topics.write(payload(0, alert=True, id="readings-3-0"), partition=3)
    assert sorted(await topics.read(2)) == [("readings-0-0", "firing"), ("readings-3-0", "firing")]
    await topics.write(payload(1), payload(2, anomaly=False), payload(2, anomaly=False), payload(3))
    assert (await topics.read(3))[2:] == [("readings-0-0", "resolved")]
    assert len(await topics.quiet()) == 3
    resolved = topics.alerts[2]
    assert (resolved["start"], resolved["end"], resolved["reason"]) == (0, 2000, "normal")
    assert (resolved["series"], resolved["actual"], resolved["interval"]) == ("pump", 0.0, [-1.0, 1.0])


async def test_a_silent_series_is_resolved(start: Start, topics: Topics) -> None:
    await start(alerts=Alerts(silence_s=1.5))
    last = await topics.write(payload(0, alert=True), payload(1))
    assert await topics.read(2) == [("readings-0-0", "firing"), ("readings-0-0", "resolved")]
    assert 1500 <= topics.told_at[1] - last < 10_000
    assert (topics.alerts[1]["reason"], topics.alerts[1]["end"]) == ("silent", 1000)
    assert len(await topics.quiet(2.5)) == 2, "one silence and a sweep later"


async def test_a_crash_repeats_nothing_and_loses_nothing(start: Start, topics: Topics) -> None:
    first = await start(static=True)  # the next one of its name need not wait until the group has buried it
    await topics.write(*(payload(n, f"s{n}", alert=True) for n in range(50)))
    await topics.read(50)
    assert len(await topics.quiet()) == 50, "and what says so is stored by now"
    first.kill()
    await topics.write(payload(0, "s0", alert=True), payload(50, "s0"), payload(51, "s1", anomaly=False))
    await topics.write(payload(52, "new", alert=True))
    await start(static=True)
    told = await topics.read(52)
    assert set(told[50:]) == {("readings-0-1", "resolved"), ("readings-0-52", "firing")}
    assert len(await topics.quiet()) == 52


async def test_what_was_firing_during_an_outage_of_the_alerter_is_not_silent(start: Start, topics: Topics) -> None:
    silence = Alerts(silence_s=2)
    child = await start(static=True, alerts=silence)
    await topics.write(payload(0, alert=True))
    await topics.read(1)
    assert len(await topics.quiet()) == 1, "and what says so is stored by now"
    child.kill()
    for n in range(1, 6):  # it goes on for longer than the silence, and nobody looks
        await topics.write(payload(n))
        await asyncio.sleep(0.5)  # by the clock: silence is measured by it
    await topics.write(payload(6, anomaly=False))
    await start(static=True, alerts=silence)
    await topics.read(2)
    assert topics.alerts[1]["reason"] == "normal"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[agent.App]:
    """The apps of this very process, as they are made."""
    apps: list[agent.App] = []
    create_app = agent.create_app

    def creating(*args: Any) -> agent.App:
        apps.append(create_app(*args))
        return apps[-1]

    monkeypatch.setattr(agent, "create_app", creating)
    return apps


async def test_a_crash_of_the_app_is_got_over_in_the_same_process(
    settings: Settings, topics: Topics, made: list[agent.App], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_PROVED_S", 1.0)
    health = Health()
    running = asyncio.create_task(life.run(settings, Metrics(), health))
    try:
        await topics.write(payload(0, alert=True))
        assert len(await topics.read(1)) == 1
        assert len(await topics.quiet()) == 1
        await made[0].crash(RuntimeError("as Faust does when a commit fails"))
        await topics.write(payload(1), payload(2, anomaly=False), payload(3, "fan", alert=True))
        told = await topics.read(3, 30)
        assert told[1:] == [("readings-0-0", "resolved"), ("readings-0-3", "firing")]
        assert len(made) == 2
        await eventually(lambda: health.ready, "the proof that it works again")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("restarts", [pytest.param(4, id="four"), pytest.param(100, id="hundred", marks=CHAOS)])
async def test_row_06_nothing_is_left_of_apps_that_were_taken_down(
    settings: Settings, made: list[agent.App], monkeypatch: pytest.MonkeyPatch, restarts: int
) -> None:
    for name in ("_BACKOFF_S", "_LONGEST_BACKOFF_S", "_PROVED_S"):
        monkeypatch.setattr(life, name, 0.0)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # pytest keeps what records of the log name
    health = Health()

    def left() -> dict[str, int]:
        gc.collect()
        threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio_")]  # those are a pool
        return {"threads": len(threads), "sockets": len(psutil.Process().net_connections())}

    running = asyncio.create_task(life.run(settings, Metrics(), health))
    seen, memory = [], []
    try:
        for n in range(restarts + 1):
            await eventually(lambda n=n: len(made) == n + 1 and health.ready, "the app")  # type: ignore[misc] # mypy and defaults
            seen.append(left())
            memory.append(psutil.Process().memory_info().rss >> 20)
            await made[n].crash(RuntimeError("as Faust does when a commit fails"))
            made[n] = None  # type: ignore[call-overload] # so that it may go
            await eventually(lambda: not health.ready, "the crash")
        await eventually(lambda: health.ready, "the last app")
        assert all(one == seen[0] for one in seen[1:]), seen
        # The first fifty fill caches, of strings for one, that are full then.
        assert restarts < 100 or memory[-1] - memory[50] <= 2, memory
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_topic_that_is_gone_is_named_and_waited_for(
    settings: Settings, kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(kafka, EmbeddedKafka):
        pytest.skip(
            "needs Apache Kafka: clients of the embedded broker do not see that a topic is gone; set KAFKA_HOME"
        )
    for name in ("_LOOK_AT_TOPICS_S", "_PROVED_S"):
        monkeypatch.setattr(life, name, 1.0)
    health = Health()
    running = asyncio.create_task(life.run(settings, Metrics(), health))
    try:
        await eventually(lambda: health.ready, "the app")
        with closing(KafkaAdminClient(**kafka_python_options(settings.kafka))) as admin:
            admin.delete_topics([settings.topics.anomalies])
        gone = f"no topic {settings.topics.anomalies}"
        await eventually(lambda: gone in str(health.parts["alerts"]), f"not {gone}: {health.parts}", 60)
        create(settings, 4)
        await eventually(lambda: health.ready, "the topic", 60)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_two_alerters_of_one_name_end_the_first_with_the_cause(start: Start) -> None:
    one = await start("twin", static=True)
    two = await start("twin", static=True)
    assert await asyncio.to_thread(one.wait, 30) == 2
    assert "another process joined group" in one.tail()
    assert "kafka.group_instance_id twin" in one.tail()
    assert two.returncode is None


async def test_rebalances_lose_nothing(start: Start, topics: Topics) -> None:
    """An alerter comes and goes, by signal and by crash, beside one that stays, while runs begin and end."""
    await start("first")
    runs, turns = 200, 5  # it ends by a signal, later by a crash, and the last turn leaves both running
    written: set[str] = set()
    second: Child | None = None
    for turn in range(turns):
        writing = asyncio.create_task(_write_runs(topics, turn * 2 * runs, runs))
        if second is None:
            second = await start("second")
        else:
            second.send_signal(signal.SIGKILL if turn == 3 else signal.SIGTERM)
            second = None
        written |= await writing
    wanted = {(id_, status) for id_ in written for status in ("firing", "resolved")}
    deadline = time.monotonic() + 60
    while not wanted <= set(told := await topics.quiet(0.5)):
        assert time.monotonic() < deadline, f"{len(wanted - set(told))} alerts of {len(wanted)} are missing"
    assert set(told) == wanted
    order: dict[str, list[str]] = {}
    for id_, status in told:
        order.setdefault(id_, []).append(status)
    assert all(statuses[0] == "firing" and statuses[-1] == "resolved" for statuses in order.values())
    assert len(told) - len(wanted) <= turns * BATCH_RECORDS, "repeated: at most the batch in hand at each rebalance"


async def _write_runs(topics: Topics, base: int, runs: int) -> set[str]:
    """The ids of `runs` runs in each partition, begun and ended within about a second."""
    ids = set()
    for partition in range(4):
        begun = range(base, base + runs)
        ids |= {f"readings-{partition}-{offset}" for offset in begun}
        await topics.write(*(_at(partition, n, n - base, True) for n in begun), partition=partition)
        await asyncio.sleep(0.3)  # so that runs of all ages are there when the group rebalances
        await topics.write(*(_at(partition, n + runs, n - base, False) for n in begun), partition=partition)
    return ids


def _at(partition: int, offset: int, n: int, anomaly: bool) -> bytes:
    return payload(offset, f"s{n}", anomaly=anomaly, alert=anomaly, id=f"readings-{partition}-{offset}")


async def test_partitions_may_be_added(start: Start, topics: Topics, settings: Settings) -> None:
    child = await start()
    await topics.write(payload(0, alert=True))
    await topics.read(1)
    with closing(KafkaAdminClient(**kafka_python_options(settings.kafka))) as admin:
        admin.create_partitions({settings.topics.anomalies: 6})
    child.send_signal(signal.SIGTERM)
    child.wait(10)
    await start()
    await topics.forget()
    await topics.write(payload(0, alert=True, id="readings-5-0"), partition=5)
    await topics.write(payload(1, anomaly=False))
    assert set((await topics.read(3))[1:]) == {("readings-5-0", "firing"), ("readings-0-0", "resolved")}


async def test_metrics_and_readiness(start: Start, topics: Topics, settings: Settings) -> None:
    metrics = settings.metrics.model_copy(update={"port": free_port()})
    await start(metrics=metrics, alerts=Alerts(silence_s=4))
    await topics.write(payload(0, alert=True), b"rubbish")
    await topics.read(1)

    def scrape() -> str:
        return get(metrics.port, "/metrics")[1]

    status, said = get(metrics.port, "/ready")
    assert status == 200
    assert '"alerts": "ok"' in said
    wait_until(lambda: "stream_gru_series_firing 1.0" in scrape(), "the sweep", 10)
    said = scrape()
    assert 'stream_gru_alert_records_total{status="firing"} 1.0' in said
    assert f'stream_gru_control_unreadable_total{{topic="{settings.topics.anomalies}"}} 1.0' in said
    assert re.search(r'stream_gru_reader_lag\{partition="0",topic="anomalies-\w+"\} 0\.0', said)


async def test_the_changelog_is_compacted_and_as_wide_as_its_topic(start: Start, settings: Settings) -> None:
    await start()
    with closing(KafkaAdminClient(**kafka_python_options(settings.kafka))) as admin:
        (changelog,) = admin.describe_topics([changelog_topic(settings)])
        assert len(changelog["partitions"]) == 4
        asked = ConfigResource(ConfigResourceType.TOPIC, changelog_topic(settings), {"cleanup.policy": None})
        (configs,) = admin.describe_configs([asked], config_filter="all")["topic"].values()
        assert configs["cleanup.policy"]["value"] == "compact"
