"""A consumer pauses after an empty answer that came at once, and only then."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from stream_gru import polite as module
from stream_gru.polite import polite

FETCH = FetchRequest.__new__(FetchRequest)
OTHER = MetadataRequest.__new__(MetadataRequest)
EMPTY = SimpleNamespace(topics=[("readings", [(0, 0, 7, b""), (1, 0, 9, b"")])])
FULL = SimpleNamespace(topics=[("readings", [(0, 0, 7, b""), (1, 0, 9, b"records")])])
ERROR = SimpleNamespace(topics=[("readings", [(0, 1, -1, b"")])])


@pytest.mark.parametrize(
    ("request_", "answer", "takes_s", "pauses"),
    [
        (FETCH, EMPTY, 0.0, True),
        (FETCH, EMPTY, 0.05, False),
        (FETCH, FULL, 0.0, False),
        (FETCH, ERROR, 0.0, False),
        (OTHER, EMPTY, 0.0, False),
    ],
)
async def test_when_it_pauses(
    request_: Any, answer: Any, takes_s: float, pauses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.2)

    async def send(node: int, request: Any, group: str | None = None) -> Any:
        assert (node, request, group) == (1, request_, "fetch")
        await asyncio.sleep(takes_s)
        return answer

    consumer = SimpleNamespace(_client=SimpleNamespace(send=send))
    assert polite(consumer) is consumer
    asked = time.monotonic()
    assert await consumer._client.send(1, request_, group="fetch") is answer
    assert (time.monotonic() - asked - takes_s > 0.15) == pauses
