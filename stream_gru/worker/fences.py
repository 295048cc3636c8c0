"""Word of partitions that another owner took: from whoever meets the fence to the assignment, which asks the group."""

from __future__ import annotations

import asyncio
import logging

from aiokafka import TopicPartition

from stream_gru.worker.live import Live, Parts

log = logging.getLogger(__name__)


class Fences:
    """Whoever is told FENCED calls `met` and goes on; the assignment waits for `news`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.doubted: set[TopicPartition] = set()  # whose group must be asked before they are taken again
        self.news = asyncio.Event()  # there may be doubted ones that nobody takes yet

    def met(self, live: Live) -> None:
        """Another owner took the partition (rule R11): all of it is dropped at once, and nothing more of it is read."""
        log.error("%s: fenced: another worker took the partition, or the store went back in time", live.id)
        self._parts.metrics.conflicts.inc()
        self._parts.release(live)
        if live.tp in self._parts.consumer.assignment():
            self._parts.consumer.pause(live.tp)
        self.doubt(live.tp)

    def doubt(self, tp: TopicPartition) -> None:
        """Whether the partition is still ours is for the group to say."""
        self.doubted.add(tp)
        self.news.set()
