"""What the alerter waits for, and when that has taken too long."""

from __future__ import annotations

import time

FETCH_AFTER_S = 5.0  # of standing still with something to read; a rebalance that drops records is over by then
STALLED_S = 60.0  # of that, though it was fetched: only a new app is of use
UNSEEN_S = 20.0  # after so long without a look, nothing is known of what was delivered meanwhile
STUCK_S = 8.0  # of waiting for one call, and something is wrong


class StalledError(Exception):
    """There are records to read, but none are delivered."""


class Unanswered:
    """What was asked of Kafka and is not done, since when, and what is known of it."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, str]] = {}  # what -> monotonic, why

    def ask(self, what: str) -> None:
        """It is asked for, or still is."""
        self._asked.setdefault(what, (time.monotonic(), ""))

    def refused(self, what: str, why: str) -> None:
        """It was not done this time."""
        since, _ = self._asked.get(what, (time.monotonic(), ""))
        self._asked[what] = since, why

    def done(self, what: str) -> None:
        """It is done, or no longer wanted."""
        self._asked.pop(what, None)

    def problem(self) -> str | None:
        """What has not been done for too long, in words."""
        for what, (since, why) in self._asked.items():
            if time.monotonic() - since > STUCK_S:
                return f"Kafka does not {what}" + (f" ({why})" if why else "")
        return None


class Standstill:
    """Which partitions have something to read, and nothing of it is delivered."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._since: dict[int, float] = {}  # partition -> monotonic
        self._looked = time.monotonic()

    def forget(self) -> None:
        """Nothing is known of any."""
        self._since.clear()

    def look(self) -> None:
        """Called at each sweep. While Kafka did not let us look, nothing could be delivered: that is no standstill."""
        now = time.monotonic()
        if now - self._looked > UNSEEN_S:
            self._since.clear()
        self._looked = now

    def moved(self, partition: int) -> None:
        """Something of it was delivered, or there is nothing to."""
        self._since.pop(partition, None)

    def waits(self, partition: int) -> bool:
        """Whether one that is behind has been for long enough to fetch its records ourselves.

        Raises `StalledError` when that has not helped for a minute.
        """
        waited = time.monotonic() - self._since.setdefault(partition, time.monotonic())
        if waited > STALLED_S:
            raise StalledError(f"{self._topic}-{partition}: nothing was delivered for {waited:.0f} s")
        return waited > FETCH_AFTER_S
