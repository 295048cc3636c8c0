"""NAB's score, on cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stream_gru.columns import Floats
from stream_gru.evaluation import nab
from stream_gru.evaluation.cases import Span, SuiteCase

STANDARD, LOW_FP, LOW_FN = nab.PROFILES.values()


def case(*windows: Span, n: int = 100) -> SuiteCase:
    return SuiteCase("file", np.arange(n) * 1000, np.zeros((n, 1)), windows)


def at(*rows: int, n: int = 100, score: float = 1.0) -> Floats:
    scores = np.zeros(n)
    scores[list(rows)] = score
    return scores


def sigmoid(position: float) -> float:
    return 2 / (1 + math.exp(5 * position)) - 1


def test_silence_is_0_and_the_first_row_of_each_window_100() -> None:
    file = case((50, 59), (80, 89))
    assert nab.evaluate([file], [at()], STANDARD, 0.5).score == 0
    for profile in nab.PROFILES.values():
        assert nab.evaluate([file], [at(50, 80)], profile, 0.5).score == pytest.approx(100)


def test_a_late_find_is_worth_less() -> None:
    found = nab.evaluate([case((50, 59))], [at(59)], STANDARD, 0.5)
    assert found.score == pytest.approx(100 * (sigmoid(-0.1) / sigmoid(-1) + 1) / 2)
    assert (found.found, found.windows, found.false) == (1, 1, 0)


def test_in_a_window_only_the_best_detection_counts() -> None:
    assert nab.evaluate([case((50, 59))], [at(52, 55, 58)], STANDARD, 0.5).score == pytest.approx(
        nab.evaluate([case((50, 59))], [at(52)], STANDARD, 0.5).score
    )


@pytest.mark.parametrize(("profile", "costs"), [(STANDARD, 0.11), (LOW_FP, 0.22), (LOW_FN, 0.11)])
def test_each_false_row_costs(profile: nab.Profile, costs: float) -> None:
    scale = profile.hit + profile.miss
    found = nab.evaluate([case((50, 59))], [at(20, 30, 50)], profile, 0.5)
    assert found.score == pytest.approx(100 * (scale - 2 * costs) / scale)
    assert found.false == 2


def test_a_false_row_just_after_a_window_costs_less() -> None:
    near = nab.evaluate([case((50, 59))], [at(50, 60)], STANDARD, 0.5).score
    assert near == pytest.approx(100 * (2 + 0.11 * sigmoid(1 / 9)) / 2)
    far = nab.evaluate([case((50, 59))], [at(50, 59 + 28)], STANDARD, 0.5).score  # past three windows' widths
    assert far == pytest.approx(100 * (2 - 0.11) / 2)


def test_a_missed_window_costs_more_where_misses_do() -> None:
    file = case((50, 59), (80, 89))
    assert nab.evaluate([file], [at(50)], STANDARD, 0.5).score == pytest.approx(50)
    assert nab.evaluate([file], [at(50, 20)], LOW_FN, 0.5).score == pytest.approx(100 * (3 - 0.11) / 6)


def test_the_first_rows_do_not_count() -> None:
    assert nab.probation(100) == 15
    assert nab.probation(10_000) == 750
    file = case((50, 59))
    assert nab.evaluate([file], [at(*range(15), 50)], STANDARD, 0.5).score == pytest.approx(100)
    assert nab.evaluate([file], [at(15, 50)], STANDARD, 0.5).score < 100
    early = nab.evaluate([case((3, 9), (50, 59))], [at(5, 50)], STANDARD, 0.5)  # a window that can't be found
    assert early.score == pytest.approx(100 * (2 + 1) / 4)
    assert early.found == 1


def test_the_threshold_is_the_best_over_all_files() -> None:
    one, two = case((50, 59)), case((40, 49))
    scores = [at(50, score=0.9) + at(*range(60, 90), score=0.5), at(40, score=0.7) + at(20, score=0.6)]
    found = nab.evaluate([one, two], scores, STANDARD)
    assert found.threshold == pytest.approx(0.7)
    assert found.score == pytest.approx(100)
    assert nab.evaluate([one, two], scores, STANDARD, 0.6).score == pytest.approx(100 * (4 - 0.11) / 4)
    assert nab.evaluate([one, two], scores, STANDARD, 0.8).score == pytest.approx(50)


def test_rows_of_one_score_are_detected_together() -> None:
    found = nab.evaluate([case((50, 59))], [at(50, *range(16, 46))], STANDARD)
    assert found.score == 0  # 30 false rows of the same score cost more than the window brings
    assert found.threshold == np.inf


def test_files_without_windows_only_cost() -> None:
    quiet = SuiteCase("quiet", np.arange(100), np.zeros((100, 1)))
    found = nab.evaluate([case((50, 59)), quiet], [at(50), at(70)], STANDARD, 0.5)
    assert found.score == pytest.approx(100 * (2 - 0.11) / 2)
