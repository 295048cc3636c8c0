"""What a topic retains, read as history to learn from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from stream_gru.cli import learning
from stream_gru.errors import BrokerError, DataError
from stream_gru.settings import Input, Settings, environment
from stream_gru.tools.feed import Feed
from stream_gru.training import data, recipe

N = 150
BAD = [(b"a", b"no json"), (b"a", None), (None, b'{"timestamp":1,"value":1}'), (b"b", b'{"timestamp":1,"value":"x"}')]


def columns(n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Readings of a and b by turns: series, timestamps, and x, y, load; one in ten of y is missing."""
    row = np.arange(2 * n)
    value = np.stack([row * 1.0, -row * 1.0, row % 5], axis=1)
    value[::10, 1] = np.nan
    value[7::10, 2] = np.nan
    return row % 2, 1_700_000_000_000 + row * 60_000, value


async def fill(settings: Settings) -> None:
    series, timestamp, value = columns()
    async with Feed(settings, ["a", "b"]) as feed:
        await feed.send(series, timestamp, value)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        for key, payload in BAD:
            await producer.send_and_wait(settings.topics.readings[0], payload, key)


@pytest.fixture
def filled(make_settings: Callable[[int], Settings]) -> Settings:
    """Two series of two features and a covariate, and some records that can't be read."""
    made = make_settings(3).model_copy(update={"input": Input(values=("x", "y"), covariates=("weather.load",))})
    asyncio.run(fill(made))
    return made


def test_everything_retained_becomes_series(filled: Settings) -> None:
    told: list[data.TopicProgress] = []
    history, progress = data.read_topic(filled, tell=told.append)
    assert progress == data.TopicProgress(2 * N + len(BAD), len(BAD))
    assert told[-1] == progress
    assert history.covariates == ("weather.load",)
    _, timestamp, value = columns()
    names = [one.name.rpartition("/")[0].rpartition("/")[2] + f"/{one.feature}" for one in history.series]
    assert sorted(names) == ["a/0", "a/1", "b/0", "b/1"]
    for one, name in zip(history.series, names, strict=True):
        assert one.name.startswith(f"{filled.topics.readings[0]}-")
        rows = np.arange(2 * N)[("ab".index(name[0])) :: 2]
        np.testing.assert_array_equal(one.timestamp, timestamp[rows])
        np.testing.assert_array_equal(one.value, value[rows, one.feature])
        np.testing.assert_array_equal(one.covariates[:, 0], value[rows, 2])
    asked = recipe.load(None, {"data.length": 50, "context.covariates": ["load"]})
    windows = next(data.source(history, asked).batches(np.random.default_rng(0)))
    assert windows.covariates.shape == (64, 50, 1)


def test_the_newest_records_alone(filled: Settings) -> None:
    with pytest.raises(DataError, match="no series of at least 100 readings"):
        data.read_topic(filled, limit=30)
    every, _ = data.read_topic(filled)
    some, progress = data.read_topic(filled, limit=2 * (N - 20))
    assert progress.records <= 2 * (N - 20)
    newest = max(int(one.timestamp[-1]) for one in some.series)
    assert newest == max(int(one.timestamp[-1]) for one in every.series)
    assert len(some) < len(every)


def test_an_empty_topic_and_no_topic(settings: Settings) -> None:
    with pytest.raises(DataError, match="no series of at least 100 readings"):
        data.read_topic(settings)
    gone = settings.model_copy(update={"topics": settings.topics.model_copy(update={"readings": ("not-there",)})})
    with pytest.raises(BrokerError, match="not-there"):
        data.read_topic(gone)


def test_the_option_reads_the_topic_of_the_configuration(
    filled: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(filled).items():
        monkeypatch.setenv(name, value)
    history = learning.history(None, None, None, None, None, True, None)
    assert history is not None
    assert len(history.series) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "304 records, 4 of them can't be decoded and are left out; 4 series to learn from" in said
