"""The gates of a series in Kafka, and of a running worker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread
from prometheus_client.parser import text_string_to_metric_families

from stream_gru.cli.gates import gates
from stream_gru.columns import Floats, Ints
from stream_gru.errors import DataError
from stream_gru.history import retained
from stream_gru.models import bundle
from stream_gru.settings import Input, Settings
from stream_gru.tools.embedded import free_port
from stream_gru.tools.feed import Feed
from tests.support.command_line import command
from tests.support.load import Load
from tests.support.pages import get
from tests.support.progress import drained
from tests.support.workers import crew
from tests.support.writing import put

N = 120
TIMES: Ints = 1_700_000_000_000 + 60_000 * np.arange(N)


async def fill(settings: Settings, names: list[str]) -> Floats:
    """N readings of each series: (N, series)."""
    values = np.random.default_rng(0).normal(20, 1, (N, len(names)))
    async with Feed(settings, names) as feed:
        for i, names_value in enumerate(values):
            await feed.send(np.arange(len(names)), np.full(len(names), TIMES[i]), names_value[:, None])
    return values


async def test_a_series_is_read_from_the_partition_of_its_key(settings: Settings) -> None:
    names = [f"unit {i}" for i in range(6)]
    values = await fill(settings, names)
    (topic,) = settings.topics.readings
    await put(settings, topic, [(b"unit 3", b"garbage"), (b"unit 3", b'{"timestamp": 1, "value": null}')])
    seen: list[int] = []
    history = await retained.read(settings, "unit 3", tell=seen.append)
    np.testing.assert_array_equal(history.timestamp, [*TIMES, 1])
    np.testing.assert_array_equal(history.value[:, 0], [*values[:, 3], np.nan])
    assert history.series == ["unit 3"] * (N + 1)
    assert sum(seen) < N * len(names), "of four partitions one is read"
    with pytest.raises(DataError, match=r"no readings of 'unit 9' in .+-\d; .* --partition"):
        await retained.read(settings, "unit 9")
    with pytest.raises(DataError, match="there is no partition 7"):
        await retained.read(settings, "unit 3", partition=7)


async def test_a_series_that_the_payload_names_is_found_wherever_it_is(settings: Settings) -> None:
    (topic,) = settings.topics.readings
    named = settings.model_copy(update={"input": Input(series=("unit",))})
    records: list[tuple[bytes | None, bytes]]
    records = [(b"key %d" % (i % 2), json.dumps({"unit": "x", "timestamp": i, "value": i}).encode()) for i in range(4)]
    await put(settings, topic, records)
    await put(settings, topic, [(b"key 0", b'{"unit": "y", "timestamp": 0, "value": 7}')])
    assert (await retained.read(named, "y")).value.tolist() == [[7.0]]
    with pytest.raises(DataError, match=r"'x' is a series in each of .+; choose with --topic and --partition"):
        await retained.read(named, "x")
    found = [tp for tp in range(4) if await _has(named, "x", tp)]
    assert len(found) == 2


async def _has(settings: Settings, series: str, partition: int) -> bool:
    try:
        return len(await retained.read(settings, series, partition=partition)) == 2
    except DataError:
        return False


async def test_the_command_draws_a_series_of_the_topic(settings: Settings, tmp_path: Path) -> None:
    values = await fill(settings, ["hall/7", "hall/8"])
    arguments = ("hall/8", "--last", 50, "--out", tmp_path, "--json")
    result = await asyncio.to_thread(command, gates, settings, *arguments)
    said = json.loads(result.stdout)
    assert (said["series"], said["readings"]) == (1, 50)
    assert Path(said["picture"]).name == "hall_8-gates.png"
    assert imread(said["picture"]).std() > 0.02
    table = pl.read_csv(said["table"])
    np.testing.assert_allclose(table["y"], values[-50:, 1])
    assert table["timestamp"].to_list() == TIMES[-50:].tolist()
    assert table["reset_mean"].is_between(0.01, 0.99).all()


@pytest.mark.parametrize("asked", [True, False])
async def test_a_worker_shows_its_gates_where_it_is_asked_to(settings: Settings, tmp_path: Path, asked: bool) -> None:
    metrics = settings.metrics.model_copy(update={"port": free_port(), "gates": asked})
    settings = settings.model_copy(update={"metrics": metrics})
    await Load(settings, series=10).send(500)
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
        _, page = await asyncio.to_thread(get, metrics.port, "/metrics")
    samples = {
        (sample.name.removeprefix("stream_gru_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    if not asked:
        assert not [name for name, *_ in samples if name.startswith("gate_activation")]
        return
    stepped = sum(samples["readings_by_level_total", level] for level in ("warmup", "normal", "anomaly"))
    assert stepped > 400
    for gate in ("update", "reset"):
        count = samples["gate_activation_count", gate]
        assert count == bundle.load().description.network.hidden * stepped, "ten series: every reading is counted"
        assert samples["gate_activation_bucket", gate, "1.0"] == count
        assert 0 < samples["gate_activation_bucket", gate, "0.5"] < count
        assert 0.1 < samples["gate_activation_sum", gate] / count < 0.9
