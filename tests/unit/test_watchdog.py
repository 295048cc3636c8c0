"""A source task that makes no turn is unready, then ended; one that turns is left alone."""

from __future__ import annotations

import threading

from stream_gru.metrics import Health
from stream_gru.worker import watchdog
from stream_gru.worker.watchdog import EXIT_STALLED, Watchdog


def test_stalled_is_unready_then_ended() -> None:
    health, ended, codes = Health({"source": None}), threading.Event(), list[int]()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    dog = Watchdog(health, unready_after_s=0.5, exit_after_s=1.0, end=end)
    assert health.ready
    dog.start()
    assert ended.wait(10)
    assert codes == [EXIT_STALLED]
    assert not health.ready
    assert health.stalled is not None


def test_turns_keep_it_quiet() -> None:
    health, ended = Health({"source": None}), threading.Event()
    dog = Watchdog(health, unready_after_s=0.5, exit_after_s=1.0, end=lambda _code: ended.set())
    dog.start()
    for _ in range(10):
        dog.turn()
        assert not ended.wait(watchdog._TICK / 2)
    assert health.ready
    dog.close()
