"""Objects that hold each other are gone a minute later, though too few were made for Python to look by itself."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from stream_gru import garbage


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


async def test_cycles_are_gone_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    garbage.settle()
    monkeypatch.setattr(garbage, "_EVERY_S", 0.01)
    collecting = asyncio.create_task(garbage.collect())
    gone = asyncio.Event()
    dropped = weakref.ref(Loop(), lambda _: gone.set())
    assert dropped() is not None
    async with asyncio.timeout(10):
        await gone.wait()
    collecting.cancel()


def test_what_is_there_is_left_out() -> None:
    kept = Loop()
    garbage.settle()
    assert gc.get_freeze_count() > 0
    assert not any(one is kept for one in gc.get_objects())
