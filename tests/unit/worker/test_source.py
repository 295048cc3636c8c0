"""How many readings the source asks for, and which of those that come it may take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream_gru.protocol.guard import ReadingGuard, Span
from stream_gru.worker.guarding import Guarding
from stream_gru.worker.source import ReadingSource, fitting

TP = TopicPartition("readings", 0)


@pytest.mark.parametrize(
    ("most", "took", "expected"),
    [(512, 0.01, 1024), (8192, 0.05, 8192), (8192, 2.0, 819), (3, 60.0, 1), (100, 0.2, 100), (512, 0.0, 1024)],
)
def test_the_batch_fits_the_time(most: int, took: float, expected: int) -> None:
    assert fitting(most, took, 8192) == expected


def live(calm: int = 0, guard: ReadingGuard | None = None) -> Any:
    """A partition at offset 7."""
    return SimpleNamespace(state=SimpleNamespace(position=7), calm=calm, guard=guard or ReadingGuard())


SAME = live()


@pytest.mark.parametrize(
    ("was", "now", "taken"),
    [
        (SAME, SAME, True),
        (live(), SAME, False),  # of which of the two assignments are they?
        (None, SAME, True),
        (None, live(calm=10), False),
        (None, live(guard=ReadingGuard((Span(7, 9, 1),))), False),
    ],
)
def test_what_a_rebalance_came_in_between_is_asked_for_again(was: Any, now: Any, taken: bool) -> None:
    sought: list[tuple[TopicPartition, int]] = []
    source = ReadingSource.__new__(ReadingSource)
    parts: Any = SimpleNamespace(
        live={TP: now}, consumer=SimpleNamespace(seek=lambda tp, offset: sought.append((tp, offset)))
    )
    source._parts, source._guarding = parts, Guarding(parts)
    polled = source._ours({TP: ["a record"]}, {TP: was} if was else {})
    assert (TP in polled) is taken
    assert sought == ([] if taken else [(TP, 7)])
