"""A source task that makes no turn is unready, then ended; one that turns is left alone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from stream_gru.metrics import Health
from stream_gru.process import watchdog
from stream_gru.process.watchdog import EXIT_STALLED, Watchdog


async def test_stalled_is_unready_then_ended(capfd: pytest.CaptureFixture[str]) -> None:
    health, ended, codes = Health({"source": None}), threading.Event(), list[int]()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    dog = Watchdog(health, unready_after_s=0.5, exit_after_s=1.0, end=end)
    assert health.ready
    dog.start()
    stuck = asyncio.create_task(_waits_for_ever())
    assert await asyncio.to_thread(ended.wait, 10)
    stuck.cancel()
    assert "in _waits_for_ever" in capfd.readouterr().err, "where it is stuck"
    assert codes == [EXIT_STALLED]
    assert not health.ready
    assert health.stalled is not None


async def _waits_for_ever() -> None:
    await asyncio.sleep(3600)


async def test_turns_keep_it_quiet() -> None:
    health, ended = Health({"source": None}), threading.Event()
    dog = Watchdog(health, unready_after_s=0.5, exit_after_s=1.0, end=lambda _code: ended.set())
    dog.start()
    for _ in range(10):
        dog.turn()
        assert not await asyncio.to_thread(ended.wait, watchdog._TICK_S / 2)
    assert health.ready
    dog.close()
