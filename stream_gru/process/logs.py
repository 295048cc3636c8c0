"""What a worker writes to stderr: one line an event, and no flood of them from the libraries."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LIBRARIES = ("aiokafka", "asyncio", "faust", "kafka", "mode")
_OURS = "stream_gru"
_REMEMBERED_MESSAGES = 1000  # to know one that is repeated
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Seldom(logging.Filter):
    """Lets a message pass once in `every_s`, and then tells how many like it were left out.

    While a broker is away, aiokafka says so a hundred times a second, and what waits for a server says so at each try.
    Like it: from the same line of a library; of our own, whose lines differ by what matters, with the same text.
    """

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._passed: dict[tuple[str, int, str], float] = {}
        self._left_out: dict[tuple[str, int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        source = record.name.partition(".")[0]
        if source not in (*LIBRARIES, _OURS):
            return True
        text = record.getMessage() if source == _OURS else ""
        like, now = (record.pathname, record.lineno, text), self._clock()
        if now - self._passed.get(like, float("-inf")) < self._every_s:
            self._left_out[like] = self._left_out.get(like, 0) + 1
            return False
        self._remember(like, now)
        if left_out := self._left_out.pop(like, 0):
            record.msg, record.args = f"{record.getMessage()} (and {left_out} more like it)", None
        return True

    def _remember(self, like: tuple[str, int, str], now: float) -> None:
        self._passed.pop(like, None)  # so that the oldest stands first
        self._passed[like] = now
        while len(self._passed) > _REMEMBERED_MESSAGES:
            self._passed.pop(next(iter(self._passed)))


def to_stderr(level: str) -> None:
    """Set up logging of this process; `level` as in the settings."""
    logging.basicConfig(format=_FORMAT, level=level.upper())
    seldom = Seldom()
    for handler in logging.getLogger().handlers:
        handler.addFilter(seldom)
    # At their lowest level the libraries log keys and values of records.
    quietest = logging.INFO if level == "debug" else logging.WARNING
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(max(quietest, logging.getLogger().level))
