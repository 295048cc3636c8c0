"""Row 19 under a running worker: its topic gets more partitions, or is deleted and made again."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from stream_gru.kafka import kafka_python_options
from stream_gru.settings import Settings
from stream_gru.tools import topics
from stream_gru.tools.embedded import ApacheKafka, KafkaServer, free_port
from stream_gru.tools.processes import wait_until
from tests.support import impatient
from tests.support.load import Load
from tests.support.progress import drained
from tests.support.workers import crew


async def test_row_19_a_topic_deleted_and_made_again_under_a_running_worker(
    kafka: KafkaServer, settings: Settings, tmp_path: Path
) -> None:
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("the embedded broker has no topic ids; set KAFKA_HOME")
    served = settings.model_copy(update={"metrics": settings.metrics.model_copy(update={"port": free_port()})})
    topic = served.topics.readings[0]
    with crew(served, tmp_path) as workers:
        worker = workers.start("a", main=impatient.main)
        await Load(served, 50).send(1000)
        await drained(served, worker)
        with closing(KafkaAdminClient(**kafka_python_options(served.kafka))) as admin:
            await asyncio.to_thread(admin.delete_topics, [topic])

        def named() -> bool:
            well, parts = workers.ready("a")
            return not well and topic in f"{parts}"

        await asyncio.to_thread(wait_until, named, "it says so", 40, worker)
        assert worker.returncode is None, "a topic that is gone is waited for"
        assert named()
        await asyncio.to_thread(topics.create, served, 4)
        assert await asyncio.to_thread(worker.wait, 40) == 2
        log = workers.log("a")
        assert "The topic was deleted and made again" in log
        assert "stream-gru state reset" in log
        assert "Traceback" not in log


async def test_row_19_partitions_added_under_a_running_worker(settings: Settings, tmp_path: Path) -> None:
    """At once, not when the client looks for them after minutes in which nobody reads them."""
    with crew(settings, tmp_path) as workers:
        worker = workers.start("a", main=impatient.main)
        await Load(settings, 50).send(1000)
        await drained(settings, worker)
        with closing(KafkaAdminClient(**kafka_python_options(settings.kafka))) as admin:
            await asyncio.to_thread(admin.create_partitions, {settings.topics.readings[0]: 8})
        assert await asyncio.to_thread(worker.wait, 40) == 2
        last = workers.log("a").rstrip().splitlines()[-1]
        assert "partitions 4, but here it is partitions 8" in last
        assert "stream-gru state reset" in last
