"""The two yardsticks, each a program of its own: ``python -m stream_gru.bench.yardsticks loop|obvious``.

`loop` is a Faust agent that does nothing but iterate events. `obvious` is the same job written one event at a time:
the row from Redis, one step of the same model, the row back to Redis, one record out. Both read the topic from its
beginning and print one JSON line: how many events they passed and in how many seconds, start-up left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, cast

import faust

from stream_gru.settings import load

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
            line = json.dumps({"events": self._last - self._first, "seconds": seconds})
            os.write(1, f"\n{line}\n".encode())  # Faust makes log lines of what is printed
            os._exit(0)  # Faust's own way out takes seconds and is not what is measured


@dataclass(frozen=True)
class Outputs:
    """Where the obvious implementation writes."""

    topic: str
    redis: str


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


def obvious(servers: str, topic: str, group: str, events: int, outputs: Outputs) -> Any:
    """The job, one event at a time: the same row, model and record, but no batch of anything."""
    import msgspec
    import numpy as np
    import redis.asyncio
    import torch

    from stream_gru import codecs
    from stream_gru.columns import Readings
    from stream_gru.engine.stepper import Stepper
    from stream_gru.settings import Input

    app, count = _app(group, servers), Count(events)
    source, sink = (app.topic(name, value_serializer="raw") for name in (topic, outputs.topic))
    client = redis.asyncio.Redis.from_url(outputs.redis)
    torch.set_num_threads(1)  # as a worker has it
    engine = Stepper(capacity=1, device="cpu")
    codec = codecs.load(Input(), engine.steps)
    engine.arena.open(0)
    slot = engine.arena.insert(0, [b"the one"])
    fresh = engine.arena.read(slot)

    async def score(stream: Any) -> None:
        async for event in stream.events():
            reading = msgspec.json.decode(event.value)
            name = f"{group}:{event.key.decode()}"
            stored = await client.get(name)
            engine.arena.write(
                slot, fresh if stored is None else np.frombuffer(memoryview(cast(bytes, stored)), np.uint8)[None]
            )
            now, value = np.array([reading["timestamp"]]), np.array([[reading["value"]]])
            forecasts = engine.step(Readings(slot, np.array([event.message.offset]), now, value))
            await client.set(name, engine.arena.read(slot).tobytes())
            place = f"{event.message.topic}-{event.message.partition}-{event.message.offset}"
            (record,) = codec.encode([event.key], now, [place], engine.bundle.name, forecasts)
            await sink.send(key=event.key, value=record)
            count.one()

    app.agent(source)(score)
    return app


def main() -> None:
    """``loop|obvious SERVERS TOPIC GROUP EVENTS [SINK]``; the settings name Redis: a password is no argument."""
    kind, servers, topic, group, events, *rest = sys.argv[1:]
    if kind == "loop":
        app = loop(servers, topic, group, int(events))
    else:
        url = load().state.url.get_secret_value()
        app = obvious(servers, topic, group, int(events), Outputs(rest[0], url))
    faust.Worker(app, loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main()
