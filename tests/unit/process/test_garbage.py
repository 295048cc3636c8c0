"""Objects that hold each other are gone a minute later, though too few were made for Python to look by itself."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from stream_gru import service
from stream_gru.metrics import Health, Metrics
from stream_gru.process import garbage
from stream_gru.settings import Settings


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Loop:
    """Holds itself."""

    def __init__(self) -> None:
        self.itself = self


async def test_cycles_are_gone_after_a_while_and_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = asyncio.Event()
    garbage.settle()
    monkeypatch.setattr(garbage, "_EVERY_S", 0.01)
    monkeypatch.setattr(garbage, "_trim", lambda _: given_back.set())
    collecting = asyncio.create_task(garbage.collect())
    gone = asyncio.Event()
    dropped = weakref.ref(Loop(), lambda _: gone.set())
    assert dropped() is not None
    async with asyncio.timeout(10):
        await gone.wait()
        await given_back.wait()
    collecting.cancel()


class Scorer:
    """Ends when it is collected beside it."""

    collected = asyncio.Event()

    def __init__(self, _: Settings) -> None:
        self.metrics, self.health, self.control = Metrics(), Health(), None

    async def run(self) -> None:
        await self.collected.wait()

    async def stop(self) -> None:
        pass


async def test_a_process_does_it_for_as_long_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    did = []

    async def collect() -> None:
        did.append("began")
        Scorer.collected.set()
        try:
            await asyncio.sleep(3600)
        finally:
            did.append("ended")

    monkeypatch.setattr(garbage, "collect", collect)
    async with asyncio.timeout(10):
        assert await service._serve(Settings(role="scorer"), Scorer) == 1
    assert did == ["began", "ended"]


def test_what_is_there_is_left_out() -> None:
    kept = Loop()
    garbage.settle()
    assert gc.get_freeze_count() > 0
    assert not any(one is kept for one in gc.get_objects())
