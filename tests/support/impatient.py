"""A worker that looks every second for what others look for every ten."""

from __future__ import annotations

from stream_gru.worker import control, topic_watch
from tests.support.forked import work


def main() -> None:
    """For `tests.support.forked.Worker`."""
    topic_watch._LOOK_S = control._FOLLOW_S = 1.0
    work()
