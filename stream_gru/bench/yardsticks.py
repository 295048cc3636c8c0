"""The two yardsticks, each a program of its own: ``python -m stream_gru.bench.yardsticks loop|obvious``.

`loop` is a Faust agent that does nothing but iterate events. `obvious` is the same job written one event at a time:
the state from Redis, one step of the same cell, the state back to Redis, one record out. Both read the topic from its
beginning and print one JSON line: how many events they passed and in how many seconds, start-up left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import faust

_WARM_UP = 0.1  # of the events


class Count:
    """Counts events and ends the process after the last one."""

    def __init__(self, events: int) -> None:
        self._first, self._last = int(events * _WARM_UP), events
        self._seen = 0
        self._started = 0.0

    def one(self) -> None:
        """An event has passed."""
        self._seen += 1
        if self._seen == self._first:
            self._started = time.perf_counter()
        elif self._seen == self._last:
            seconds = time.perf_counter() - self._started
            sys.stdout.write(json.dumps({"events": self._last - self._first, "seconds": seconds}) + "\n")
            sys.stdout.flush()
            os._exit(0)  # Faust's own way out takes seconds and is not what is measured


def _app(name: str, servers: str) -> Any:
    return faust.App(
        name,
        broker=f"kafka://{servers}",
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        store="memory://",
    )


def loop(servers: str, topic: str, group: str, events: int) -> Any:
    """A worker that only iterates."""
    app, count = _app(group, servers), Count(events)
    source = app.topic(topic, value_serializer="raw")

    async def iterate(stream: Any) -> None:
        async for _ in stream:
            count.one()

    app.agent(source)(iterate)
    return app


def obvious(servers: str, topic: str, group: str, events: int, url: str) -> Any:
    """The job, one event at a time."""
    import numpy as np
    import redis.asyncio
    import torch

    from stream_gru.settings import Kafka

    app, count = _app(group, servers), Count(events)
    source = app.topic(topic, value_serializer="raw")
    sink = app.topic(f"{topic}-{Kafka().group_id}-obvious", value_serializer="raw")
    client = redis.asyncio.Redis.from_url(url)
    cell, head = torch.nn.GRUCell(1, 64), torch.nn.Linear(64, 3)
    torch.set_num_threads(1)

    async def score(stream: Any) -> None:
        async for event in stream.events():
            reading = json.loads(event.value)
            name = f"{group}:{event.key.decode()}"
            stored = await client.get(name)
            hidden = (
                torch.zeros(1, 64) if stored is None else torch.from_numpy(np.frombuffer(stored, "f4").copy())[None]
            )
            with torch.inference_mode():
                hidden = cell(torch.tensor([[reading["value"]]], dtype=torch.float32), hidden)
                lower, median, upper = head(hidden)[0].tolist()
            await client.set(name, hidden.numpy().tobytes())
            forecast = {"series": name, "timestamp": reading["timestamp"], "yhat": median, "bounds": [lower, upper]}
            await sink.send(key=event.key, value=json.dumps(forecast).encode())
            count.one()

    app.agent(source)(score)
    return app


def main() -> None:
    """``loop|obvious SERVERS TOPIC GROUP EVENTS [REDIS]``."""
    kind, servers, topic, group, events, *rest = sys.argv[1:]
    app = (
        loop(servers, topic, group, int(events))
        if kind == "loop"
        else obvious(servers, topic, group, int(events), *rest)
    )
    faust.Worker(app, loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main()
