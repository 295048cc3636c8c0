"""A record that crashes every worker, at any place of any batch: three crashes, and only it is refused."""

from __future__ import annotations

from collections.abc import Set

import hypothesis.strategies as st
from hypothesis import given, settings

from stream_gru.protocol.guard import ALONE, DEATHS, after

MANY = 1_000_000


class Log:
    """A partition and its store, for workers that come one after the other."""

    def __init__(self, end: int) -> None:
        self.end, self.stored, self.reading = end, 0, ""
        self.refused: list[int] = []
        self.pieces = 0

    def read(
        self,
        poisons: Set[int] = frozenset(),
        *,
        kill: int | None = None,
        leave: int | None = None,
        poll: int = 8192,
        checkpoints: bool = False,
    ) -> bool:
        """One worker, from its assignment to its end; whether it died. `kill`: of no record's fault, as it scores this
        offset; `leave`: it hands over before this one."""
        position, fatal = self.stored, {*poisons} if kill is None else {*poisons, kill}
        guard = after(self.reading, position)
        self.reading = str(guard)
        while position < self.end:
            offsets = range(position, min(position + poll, self.end))
            careful = guard.on(position)
            for piece in guard.pieces(offsets) if careful else [slice(None)]:
                some = offsets[piece]
                self.pieces += careful
                if leave is not None and leave < some.stop:
                    self.reading = guard.left(self.stored)
                    return False
                if blamed := guard.blames(some):
                    assert len(some) == 1
                    self.refused += {*some} - {*self.refused}
                    guard = blamed
                else:
                    guard = guard.tries(some.start, some.stop - 1)
                    self.reading = str(guard)
                    if any(offset in some for offset in fatal):
                        return True
                guard = guard.past(some.stop)
            position = offsets.stop
            if checkpoints:
                self.stored = position
        self.stored, self.reading = position, guard.left(position)
        return False


places = st.integers(1, MANY).flatmap(lambda end: st.tuples(st.just(end), st.integers(0, end - 1)))


@given(places, st.integers(1, MANY), st.booleans())
@settings(max_examples=100, deadline=None)
def test_three_crashes_wherever_it_stands(place: tuple[int, int], poll: int, checkpoints: bool) -> None:
    end, poison = place
    poll = max(poll, end // 1000)
    log, crashes = Log(end), 0
    while log.read({poison}, poll=poll, checkpoints=checkpoints):
        crashes += 1
        assert crashes <= DEATHS
    assert (crashes, log.refused, log.stored) == (DEATHS, [poison], end)
    assert log.reading == "", "nothing is left to guard"
    careful = log.pieces
    log.end += 100
    assert not log.read(poll=10)
    assert log.pieces == careful, "and nothing beyond is read with care"


@given(st.integers(2, 20_000), st.data())
@settings(max_examples=100, deadline=None)
def test_several_such_records_with_checkpoints_and_hand_overs_between(end: int, data: st.DataObject) -> None:
    poisons = data.draw(st.sets(st.integers(0, end - 1), min_size=1, max_size=4))
    log, crashes, leaves = Log(end), 0, 0
    while log.stored < end:
        leave = data.draw(st.integers(log.stored, end - 1)) if leaves < 6 and data.draw(st.booleans()) else None
        leaves += leave is not None
        poll, checkpoints = data.draw(st.integers(1, 9000)), data.draw(st.booleans())
        crashes += log.read(poisons, leave=leave, poll=poll, checkpoints=checkpoints)
        assert crashes <= DEATHS * len(poisons)
    assert sorted(log.refused) == sorted(poisons)


@given(st.integers(1, 5000), st.lists(st.tuples(st.integers(0, 4999), st.booleans()), max_size=12))
@settings(max_examples=300, deadline=None)
def test_kills_by_chance_blame_nothing_that_was_not_hit_three_times(end: int, kills: list[tuple[int, bool]]) -> None:
    log = Log(end)
    places = [min(place, end - 1) for place, _ in kills]
    for place, (_, checkpoints) in zip(places, kills, strict=True):
        log.read(kill=place, checkpoints=checkpoints, poll=700)
    assert not log.read()
    assert DEATHS * len(log.refused) <= len(kills), "each took three ends of its own"
    assert {*log.refused} <= {*places}, "the last of which was at the record alone"


@given(st.integers(1, 5000), st.lists(st.tuples(st.integers(0, 4999), st.booleans()), max_size=20))
@settings(max_examples=300, deadline=None)
def test_in_small_batches_two_of_the_three_were_at_the_record_alone(end: int, kills: list[tuple[int, bool]]) -> None:
    log = Log(end)
    places = [min(place, end - 1) for place, _ in kills]
    for place, (_, checkpoints) in zip(places, kills, strict=True):
        log.read(kill=place, checkpoints=checkpoints, poll=ALONE)
    assert not log.read(poll=ALONE)
    assert all(places.count(offset) > 1 for offset in log.refused)
