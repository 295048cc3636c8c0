"""A topic that grows while it is read: what came after the start is left for later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition

from stream_gru.kafka import tail
from stream_gru.settings import Settings
from stream_gru.training.data.topic import TopicProgress, read_topic

PLACE = TopicPartition("readings", 0)


class Record(NamedTuple):
    offset: int
    key: bytes = b"a"
    timestamp: int = 0

    @property
    def value(self) -> bytes:
        return b'{"timestamp":%d,"value":%d}' % (self.offset, self.offset)


class Consumer:
    """Of one partition whose end moves on by ten records with each poll; a poll gives fifty."""

    def __init__(self) -> None:
        self.at, self.end = 7, 190

    def assignment(self) -> set[TopicPartition]:
        return {PLACE}

    async def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.end)

    async def position(self, _: TopicPartition) -> int:
        return self.at

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.at = offset

    def pause(self, _: TopicPartition) -> None:
        self.end = self.at

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        self.end += 10
        some = [Record(offset) for offset in range(self.at, min(self.at + 50, self.end))]
        self.at += len(some)
        return {PLACE: some}


@pytest.mark.parametrize(("limit", "first"), [(None, 7), (120, 70), (10**6, 7)])
def test_read_to_what_was_the_end(monkeypatch: pytest.MonkeyPatch, limit: int | None, first: int) -> None:
    @asynccontextmanager
    async def reader(*_: Any, from_beginning: bool) -> AsyncIterator[Consumer]:
        assert from_beginning
        yield Consumer()

    monkeypatch.setattr(tail, "reader", reader)
    history, progress = read_topic(Settings(), limit)
    assert progress == TopicProgress(190 - first, 0)
    assert history.series[0].value.tolist() == list(range(first, 190))
    assert history.series[0].name == "readings-0/a"
