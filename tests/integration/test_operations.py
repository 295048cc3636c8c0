"""What operators see and do: endpoints, commands, refusals to start, gaps, topics made again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from stream_gru.kafka import kafka_python_options
from stream_gru.models import bundle as bundles
from stream_gru.models.bundle import Description
from stream_gru.settings import Settings
from stream_gru.tools import topics
from stream_gru.tools.embedded import ApacheKafka, KafkaServer, free_port
from stream_gru.worker import commands
from stream_gru.worker.commands import Command
from tests.support.check import check
from tests.support.deploy_files import metric_names_exposed, metric_names_used
from tests.support.load import Load
from tests.support.pages import get
from tests.support.progress import drained
from tests.support.reading import read
from tests.support.workers import crew


@pytest.fixture
def served(settings: Settings) -> Settings:
    return settings.model_copy(update={"metrics": settings.metrics.model_copy(update={"port": free_port()})})


def admin(settings: Settings) -> Any:
    return KafkaAdminClient(**kafka_python_options(settings.kafka))


async def test_endpoints_of_a_live_worker(served: Settings, tmp_path: Path) -> None:
    with crew(served, tmp_path, "a") as workers:
        load = Load(served, 50)
        await load.send(2000)
        await drained(served, workers.workers["a"])
        status, page = get(served.metrics.port, "/metrics")
        assert status == 200
        assert not metric_names_used() - metric_names_exposed(page)
        values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        dead = len(await read(served, served.topics.dead_letters))
        assert float(values["stream_gru_model_datapoints_produced_total"]) == 2000 - dead
        assert float(values['stream_gru_dead_letters_total{reason="invalid_timestamp"}']) == dead
        assert float(values["stream_gru_state_rows"]) == 50
        assert get(served.metrics.port, "/ready")[0] == 200
        assert json.loads(get(served.metrics.port, "/health")[1])["ready"] is True
        assert get(served.metrics.port, "/elsewhere")[0] == 404


async def test_reset_reload_and_report(settings: Settings, tmp_path: Path) -> None:
    other = tmp_path / "other"
    bundles.save(other, Description(name="other"), bundles.build(Description(name="other")))
    load = Load(settings, 20)
    with crew(settings, tmp_path, "a") as workers:
        await load.send(2000)
        await drained(settings, workers.workers["a"])
        (report,) = await commands.send(settings, Command(command="report"), expect=1)
        assert report.detail["rows"] == 20
        (reset,) = await commands.send(settings, Command(command="reset", series="sensor-00003"), expect=1)
        assert (reset.status, len(reset.detail)) == ("ok", 1)
        (unknown,) = await commands.send(settings, Command(command="reset", series="nobody"), expect=1)
        assert unknown.status == "ignored"
        (wrong,) = await commands.send(settings, Command(command="reload", bundle=str(tmp_path / "none")), expect=1)
        assert wrong.status == "error"
        (reloaded,) = await commands.send(settings, Command(command="reload", bundle=str(other)), expect=1)
        assert reloaded.detail["model"].startswith("other@")
        before = len(await read(settings, settings.topics.forecasts))
        await load.send(200)
        await drained(settings, workers.workers["a"])
        new = [json.loads(r.value) for r in (await read(settings, settings.topics.forecasts))]
        assert sum(record["model"].startswith("other@") for record in new) == len(new) - before > 150
        assert workers.stop() == {"a": 0}


async def test_row_19_added_partitions_are_refused(kafka: KafkaServer, settings: Settings, tmp_path: Path) -> None:
    with crew(settings, tmp_path, "a") as workers:
        await Load(settings, 50).send(500)
        await drained(settings, workers.workers["a"])
        workers.stop()
        client = admin(settings)
        for name in (settings.topics.readings[0], settings.topics.forecasts, settings.topics.anomalies):
            await asyncio.to_thread(client.create_partitions, {name: 8})
        await asyncio.to_thread(client.create_partitions, {settings.topics.dead_letters: 8})
        client.close()
        outputs = len(await read(settings, settings.topics.forecasts))
        assert workers.start("a").wait(30) == 2
        assert "stream-gru state reset" in workers.log("a")
        assert len(await read(settings, settings.topics.forecasts)) == outputs


async def test_row_19_a_topic_made_again_is_refused(kafka: KafkaServer, settings: Settings, tmp_path: Path) -> None:
    """By its id on Apache Kafka, by the log's end or the last record's crc elsewhere."""
    with crew(settings, tmp_path, "a") as workers:
        await Load(settings, 50).send(2000)
        await drained(settings, workers.workers["a"])
        workers.stop()
        client = admin(settings)
        await asyncio.to_thread(client.delete_topics, [settings.topics.readings[0]])
        client.close()
        await asyncio.to_thread(topics.create, settings, 4)
        await Load(settings, 50, seed=5).send(100 if isinstance(kafka, ApacheKafka) else 3000)
        assert workers.start("a").wait(30) == 2
        assert "stream-gru state reset" in workers.log("a")


@pytest.mark.parametrize("policy", ["continue", "refuse"])
async def test_row_18_records_gone_before_they_were_read(
    kafka: KafkaServer, settings: Settings, tmp_path: Path, policy: str
) -> None:
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("the embedded broker can't delete records; set KAFKA_HOME")
    chosen = settings.model_copy(update={"state": settings.state.model_copy(update={"on_gap": policy})})
    load = Load(chosen, 50)
    with crew(chosen, tmp_path, "a") as workers:
        await load.send(1000)
        await drained(chosen, workers.workers["a"])
        workers.stop()
        await load.send(1000)
        client = admin(chosen)
        from kafka import TopicPartition

        ends = {TopicPartition(chosen.topics.readings[0], p): -1 for p in range(4)}
        await asyncio.to_thread(client.delete_records, ends)
        client.close()
        worker = workers.start("a")
        if policy == "refuse":
            assert worker.wait(30) == 2
            assert "state.on_gap" in workers.log("a")
            return
        await load.send(500)
        await drained(chosen, worker)
        assert workers.stop() == {"a": 0}
        assert workers.log("a").count("gap: records [") == 4


async def test_another_group_reads_on_its_own(settings: Settings, tmp_path: Path) -> None:
    """State and offsets belong to the group."""
    await Load(settings, 50).send(1000)
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
        workers.stop()
    assert (await check(settings)).duplicates == 0
    renamed = settings.kafka.model_copy(update={"group_id": f"{settings.kafka.group_id}-other"})
    other = settings.model_copy(update={"kafka": renamed})
    with crew(other, tmp_path, "b") as workers:
        await drained(other, workers.workers["b"])
        workers.stop()
    outputs = await read(settings, settings.topics.forecasts)
    dead = await read(settings, settings.topics.dead_letters)
    assert len(outputs) + len(dead) == 2000
