"""What a log holds beside readings, and who may be in the group."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from stream_gru.kafka import aiokafka_options
from stream_gru.settings import Settings
from stream_gru.tools.embedded import ApacheKafka, KafkaServer, free_port
from stream_gru.tools.processes import wait_until
from tests.support.check import check
from tests.support.load import Load
from tests.support.pages import get
from tests.support.progress import drained
from tests.support.reading import read
from tests.support.workers import crew


def lag(settings: Settings) -> float:
    """The sum of `stream_gru_reader_lag` over the partitions."""
    _, page = get(settings.metrics.port, "/metrics")
    return sum(map(float, re.findall(r"stream_gru_reader_lag\{.*\} (\S+)", page)))


async def test_aborted_transactions_are_passed_over(
    kafka: KafkaServer, make_settings: Callable[[int], Settings], tmp_path: Path
) -> None:
    """Ten committed, ten aborted, then silence: the stored offset is the end of the log, and nothing is behind."""
    made = make_settings(1)
    settings = made.model_copy(update={"metrics": made.metrics.model_copy(update={"port": free_port()})})
    producer = AIOKafkaProducer(**aiokafka_options(settings.kafka), transactional_id=f"t-{settings.kafka.group_id}")
    await producer.start()
    now = int(time.time() * 1000)
    try:
        for commits in (True, False):
            await producer.begin_transaction()
            for n in range(10):
                payload = b'{"timestamp": %d, "value": %d}' % (now + n, n)
                await producer.send_and_wait(settings.topics.readings[0], key=b"s", value=payload)
            await (producer.commit_transaction() if commits else producer.abort_transaction())
    finally:
        await producer.stop()
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
        wait_until(lambda: lag(settings) == 0, "nothing is behind", 20, workers.workers["a"])
        assert workers.stop() == {"a": 0}
    assert len(await read(settings, settings.topics.forecasts)) == 10


async def test_two_workers_of_one_instance_id_are_told(kafka: KafkaServer, settings: Settings, tmp_path: Path) -> None:
    """The one that is replaced ends and says why; they do not throw each other out for ever."""
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("the embedded broker lets two members have one group_instance_id; set KAFKA_HOME")
    named = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"group_instance_id": "worker"})})
    load = Load(named, 50)
    with crew(named, tmp_path) as workers:
        first = workers.start("same", instance="one")
        await load.send(1000)
        await drained(named, first)
        second = workers.start("other", instance="one")
        assert first.wait(60) == 2
        last = workers.log("same").splitlines()[-1]
        assert "kafka.group_instance_id" in last
        assert "another process" in last
        await load.send(1000)
        await drained(named, second)
        workers.workers.pop("same")
        assert workers.stop() == {"other": 0}
    assert (await check(named)).duplicates == 0
