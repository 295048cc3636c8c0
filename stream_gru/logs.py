"""What a worker writes to stderr: one line an event, and no flood of them from the libraries."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LIBRARIES = ("aiokafka", "asyncio", "faust", "kafka", "mode")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Seldom(logging.Filter):
    """Lets a message of a library pass once in `every_s`, and then tells how many like it were left out.

    While a broker is away, aiokafka says so a hundred times a second. Like it: from the same line of the library.
    """

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._passed: dict[tuple[str, int], float] = {}
        self._left_out: dict[tuple[str, int], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        line, now = (record.pathname, record.lineno), self._clock()
        if now - self._passed.get(line, float("-inf")) < self._every_s:
            self._left_out[line] = self._left_out.get(line, 0) + 1
            return False
        self._passed[line] = now
        if left_out := self._left_out.pop(line, 0):
            record.msg, record.args = f"{record.getMessage()} (and {left_out} more like it)", None
        return True


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
