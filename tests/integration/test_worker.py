"""The main job on a real broker and a real Redis: one output or dead letter for every record, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from stream_gru.kafka import aiokafka_options
from stream_gru.settings import Input, Settings
from tests.support.check import check
from tests.support.load import Load
from tests.support.progress import drained
from tests.support.reading import read
from tests.support.workers import crew
from tests.support.writing import NOW, reading

STAMP = b'"timestamp": %d' % NOW


BAD: list[tuple[bytes | None, bytes | None, str]] = [
    (b"a", b"garbage", "invalid_json"),
    (b"a", b"[1, 2]", "not_an_object"),
    (b"a", b"{" + STAMP + b"}", "missing_field"),
    (b"a", b'{"value": 1.0}', "missing_field"),
    (b"a", b"{" + STAMP + b', "value": "1"}', "invalid_value"),
    (b"a", b"{" + STAMP + b', "value": NaN}', "invalid_json"),
    (b"a", b"{" + STAMP + b', "value": 1e31}', "value_out_of_range"),
    (b"a", b"{" + STAMP + b', "value": 1e999}', "value_out_of_range"),
    (b"a", b'{"timestamp": "noon", "value": 1.0}', "invalid_timestamp"),
    (b"a", reading(1.0, NOW + 2 * 86_400_000), "future_timestamp"),
    (b"a", None, "tombstone"),
    (None, b"{" + STAMP + b', "value": 1.0}', "key_missing"),
    (b"k" * 257, b"{" + STAMP + b', "value": 1.0}', "key_too_large"),
    (b"a", b"{" + STAMP + b', "value": 1.0, "x": "' + b"x" * 70_000 + b'"}', "payload_too_large"),
    (b"a", b"{" + STAMP + b', "value": 1},{"timestamp": 1790000000000', "invalid_json"),
    (b"a", b"[" * 5000, "invalid_json"),
]


async def produce(settings: Settings, records: list[tuple[bytes | None, bytes | None]]) -> None:
    producer = AIOKafkaProducer(**aiokafka_options(settings.kafka), acks="all")
    await producer.start()
    try:
        for key, value in records:
            topic = settings.topics.readings[0]
            await producer.send_and_wait(topic, key=key, value=value, partition=0, timestamp_ms=NOW)
    finally:
        await producer.stop()


async def outputs(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in await read(settings, settings.topics.forecasts)]


async def test_every_bad_record_is_one_dead_letter_and_its_neighbours_are_exact(
    settings: Settings, tmp_path: Path
) -> None:
    records: list[tuple[bytes | None, bytes | None]] = []
    for i, (key, value, _) in enumerate(BAD):
        records += [(b"b", reading(float(i), NOW + i)), (key, value)]
    records.append((b"b", reading(99.0, NOW + 1000)))
    await produce(settings, records)
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
        assert workers.stop() == {"a": 0}
    dead = [json.loads(record.value) for record in await read(settings, settings.topics.dead_letters)]
    assert [letter["reason"] for letter in sorted(dead, key=lambda d: d["offset"])] == [reason for _, _, reason in BAD]
    assert [letter["offset"] for letter in sorted(dead, key=lambda d: d["offset"])] == list(range(1, 2 * len(BAD), 2))
    said = await outputs(settings)
    assert [out["y"] for out in said] == [*map(float, range(len(BAD))), 99.0]
    assert {out["series"] for out in said} == {"b"}
    await check(settings)


async def test_missing_late_and_equal_timestamps(settings: Settings, tmp_path: Path) -> None:
    await produce(
        settings,
        [
            (b"s", reading(1.0, NOW)),
            (b"s", reading(None, NOW + 1000)),
            (b"s", reading(2.0, NOW + 500)),
            (b"s", reading(3.0, NOW + 1000)),
        ],
    )
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
    said = await outputs(settings)
    assert [out["level"] for out in said] == ["warmup", "missing", "late", "warmup"]
    assert [out["y"] for out in said] == [1.0, None, 2.0, 3.0]
    assert [out["anomaly_score"] for out in said] == [None] * 4  # too young to be judged, or nothing to judge
    assert [out["id"].rsplit("-", 1)[1] for out in said] == ["0", "1", "2", "3"]


async def test_multivariate_readings_and_a_series_from_fields(
    make_settings: Callable[[int], Settings], tmp_path: Path
) -> None:
    settings = make_settings(2).model_copy(
        update={"input": Input(series=("plant", "sensor"), timestamp_format="iso", values=("flow", "level"))}
    )
    minute = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(NOW / 1000)).encode()
    await produce(
        settings,
        [
            (None, b'{"plant": "p1", "sensor": 7, "timestamp": "%s:00Z", "flow": 1.5, "level": null}' % minute),
            (None, b'{"plant": "p1", "sensor": 7, "timestamp": "%s:01Z", "flow": 2.5, "level": 8}' % minute),
        ],
    )
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
    first, second = await outputs(settings)
    assert first["series"] == "p1/7"
    assert first["y"] == {"flow": 1.5, "level": None}
    assert second["y"] == {"flow": 2.5, "level": 8.0}
    assert set(second["yhat"]) == {"flow", "level"}


async def test_a_new_series_too_many_is_a_dead_letter(settings: Settings, tmp_path: Path) -> None:
    limited = settings.model_copy(update={"state": settings.state.model_copy(update={"max_series": 2})})
    await produce(limited, [(key, reading(1.0)) for key in (b"a", b"b", b"c", b"a", b"c")])
    with crew(limited, tmp_path, "a") as workers:
        await drained(limited, workers.workers["a"])
    assert [out["series"] for out in await outputs(limited)] == ["a", "b", "a"]
    dead = [json.loads(record.value) for record in await read(limited, limited.topics.dead_letters)]
    assert [letter["reason"] for letter in dead] == ["too_many_series"] * 2


async def test_a_clean_restart_repeats_nothing(settings: Settings, tmp_path: Path) -> None:
    load = Load(settings, 200)
    with crew(settings, tmp_path) as workers:
        for _ in range(3):
            await load.send(4000)
            worker = workers.start("a")
            await drained(settings, worker)
            assert workers.stop() == {"a": 0}
    checked = await check(settings)
    assert checked.inputs == 12_000
    assert checked.dead > 0
    assert checked.duplicates == 0


async def test_more_series_than_memory_holds(settings: Settings, tmp_path: Path) -> None:
    """Rows are evicted after a checkpoint and come back from Redis."""
    small = settings.model_copy(
        update={
            "state": settings.state.model_copy(update={"capacity": 512, "checkpoint_interval_s": 0.2}),
            "worker": settings.worker.model_copy(update={"max_batch": 256}),
        }
    )
    load = Load(small, 1500)
    with crew(small, tmp_path) as workers:
        await load.send(9000)
        worker = workers.start("a")
        await drained(small, worker)
        assert workers.stop() == {"a": 0}
    assert (await check(small)).duplicates == 0


async def test_replayed_readings_match_a_backtest(settings: Settings, tmp_path: Path) -> None:
    """The stream gives what the same engine gives in one process."""
    from stream_gru.columns import Readings
    from stream_gru.engine.stepper import Stepper

    values = 10 + np.sin(np.arange(300) / 10)
    await produce(settings, [(b"s", reading(float(v), NOW + 1000 * i)) for i, v in enumerate(values)])
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
    engine = Stepper(device="cpu", capacity=10)
    engine.arena.open(0)
    slots = np.repeat(engine.arena.insert(0, [b"s"]), 300)
    oracle = engine.step(Readings(slots, np.arange(300), NOW + 1000 * np.arange(300), values[:, None]))
    said = await outputs(settings)
    assert [out["y"] for out in said] == values.tolist()
    yhat = np.array([np.nan if out["yhat"] is None else out["yhat"] for out in said])
    np.testing.assert_allclose(yhat, oracle.yhat[:, 0], atol=1e-5)


@pytest.mark.parametrize("policy", ["rebuild", "refuse"])
async def test_row_12_an_emptied_store_is_said_aloud(
    settings: Settings, redis_url: str, tmp_path: Path, policy: str
) -> None:
    import redis

    chosen = settings.model_copy(update={"state": settings.state.model_copy(update={"on_state_lost": policy})})
    await Load(chosen, 50).send(2000)
    with crew(chosen, tmp_path) as workers:
        await drained(chosen, workers.start("a"))
        workers.stop()
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        if policy == "refuse":
            assert workers.start("a").wait(30) != 0
            assert "state.on_state_lost" in workers.log("a")
            assert "Traceback" not in workers.log("a")
            return
        await Load(chosen, 50, seed=1).send(100)
        await drained(chosen, workers.start("a"))
        assert workers.stop() == {"a": 0}
        assert "state lost" in workers.log("a")
    assert (await check(chosen)).duplicates == 0


async def test_a_batch_of_nothing_but_bad_records(settings: Settings, tmp_path: Path) -> None:
    await produce(settings, [(b"a", b"garbage")] * 5)
    with crew(settings, tmp_path, "a") as workers:
        await drained(settings, workers.workers["a"])
        await produce(settings, [(b"a", reading(1.0))])
        await drained(settings, workers.workers["a"])
        assert workers.stop() == {"a": 0}
    assert [out["y"] for out in await outputs(settings)] == [1.0]
    assert len(await read(settings, settings.topics.dead_letters)) == 5
