from __future__ import annotations

import msgspec

from stream_gru.protocol.guard import ALONE, DEATHS, ReadingGuard, Span, after, handed_over


def spans(guard: ReadingGuard, offsets: list[int]) -> list[list[int]]:
    return [offsets[piece] for piece in guard.pieces(offsets)]


def test_nothing_left_behind_is_nothing_to_guard() -> None:
    assert after("", 5) == ReadingGuard()
    assert handed_over("")
    assert ReadingGuard().left(5) == ""
    assert not ReadingGuard().on(0)


def test_what_was_tried_and_not_stored_is_suspected() -> None:
    reading = str(ReadingGuard().tries(10, 19))
    assert not handed_over(reading)
    assert after(reading, 10).suspects == (Span(10, 20, 1),)
    assert after(reading, 14).suspects == (Span(14, 20, 1),)
    assert after(reading, 20) == ReadingGuard(), "it is stored, so it was scored"


def test_holes_in_the_log_do_not_widen_a_piece() -> None:
    guard = ReadingGuard((Span(20, 30, 1),))
    assert spans(guard, [3, 9, 21, 29, 31, 60]) == [[3, 9], [21], [29], [31, 60]]
    assert spans(guard.past(30), [31, 60]) == [[31, 60]]


def test_many_suspects_are_tried_in_pieces_first() -> None:
    guard = ReadingGuard((Span(0, 10_000, 1),))
    assert {len(some) for some in spans(guard, list(range(10_000)))} == {100}
    assert {len(some) for some in spans(ReadingGuard((Span(0, 100, 2),)), list(range(100)))} == {1}
    assert {len(some) for some in spans(ReadingGuard((Span(0, ALONE, 1),)), list(range(ALONE)))} == {1}


def test_only_the_third_end_makes_a_dead_letter_and_clears_nobody_else() -> None:
    others = (Span(50, 60, 2),)
    assert ReadingGuard((*others, Span(7, 8, DEATHS - 1))).blames([7]) is None
    assert ReadingGuard((*others, Span(7, 9, DEATHS))).blames([7]) is None
    blamed = ReadingGuard((*others, Span(7, 8, DEATHS))).blames([7])
    assert blamed == ReadingGuard(others, refused=(7,))
    assert blamed.blames([7]) == blamed
    assert blamed.blames([8]) is None


def test_a_dead_letter_is_remembered_until_it_is_stored() -> None:
    guard = ReadingGuard(refused=(7,))
    assert after(guard.left(5), 5).refused == (7,)
    assert handed_over(guard.left(5))
    assert guard.left(8) == ""
    assert after(str(guard.tries(8, 9)), 6).refused == (7,)


def test_suspects_outlive_a_clean_hand_over() -> None:
    guard = ReadingGuard((Span(10, 20, 2),)).tries(10, 10)
    left = guard.left(10)
    assert after(left, 10) == ReadingGuard((Span(10, 20, 2),))
    assert msgspec.json.decode(left)["trying"] is None
