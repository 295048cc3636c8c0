"""Rates of flagged rows, areas under curves, events at limited false alarms, and the detection baselines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stream_gru.evaluation import judges, ranking, skab
from stream_gru.evaluation.cases import SuiteCase, halves, runs


def test_rates_of_flagged_rows() -> None:
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], np.bool_)
    flag = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0], np.bool_)
    found = skab.rates(flag, truth)
    assert found.f1 == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert found.far == pytest.approx(100 / 6)
    assert found.mar == pytest.approx(25)
    assert skab.rates(~truth & False, truth) == skab.Rates(0.0, 0.0, 100.0)


def test_the_best_threshold_by_f1_and_with_few_false_alarms() -> None:
    score = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], np.float64)
    truth = np.array([1, 1, 0, 0, 1, 1, 1, 0, 0, 0], np.bool_)
    assert skab.best_threshold(score, truth) == 3  # 5 hits, 2 false
    assert skab.best_threshold(score, truth, most_far=20) == 8  # 2 hits, none false; 1 false is no gain
    assert skab.best_threshold(score, truth & False) == math.inf


def test_average_precision_and_best_f1() -> None:
    score = np.array([4.0, 3.0, 2.0, 1.0])
    truth = np.array([1, 0, 1, 0], np.bool_)
    assert ranking.average_precision(score, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert ranking.best_f1(score, truth) == pytest.approx(0.8)
    assert ranking.best_f1(np.ones(4), truth) == pytest.approx(2 * 2 / (4 + 2))  # ties are flagged together


def test_vus_pr_without_a_buffer_is_the_area_under_the_curve_of_one_event() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros(300, np.bool_)
    truth[100:120] = True
    score = rng.random(300) + truth
    order = np.argsort(-score)
    hits = np.cumsum(truth[order])
    touched = hits > 0
    recall, precision = hits / 20 * touched, hits / np.arange(1, 301)
    assert ranking.vus_pr(score, truth, buffer=0) == pytest.approx(np.sum(np.diff(recall, prepend=0) * precision))


def test_vus_pr_forgives_being_a_few_rows_off_and_counts_each_event() -> None:
    truth = np.zeros(1000, np.bool_)
    truth[500:510] = True
    right, near, far = (np.zeros(1000) for _ in range(3))
    right[500:510], near[511:521], far[100:110] = 1, 1, 1
    assert ranking.vus_pr(right, truth) > ranking.vus_pr(near, truth) > 5 * ranking.vus_pr(far, truth)
    assert ranking.vus_pr(near, truth, buffer=0) == pytest.approx(ranking.vus_pr(far, truth, buffer=0))
    assert ranking.vus_pr(right, truth, buffer=0) == 1

    two = truth.copy()
    two[200:210] = True
    one_of_two = ranking.vus_pr(right, two, buffer=0)
    assert one_of_two < 0.5  # half of the rows and only half of the events, not half of the area alone


def test_vus_pr_by_hand() -> None:
    truth = np.array([0, 0, 1, 0, 0], np.bool_)
    score = np.array([0.0, 0.0, 0.0, 1.0, 0.0])
    # Widths 0 and 1: only the row itself counts, all 5 rows must be flagged. Width 2: rows 1 and 3 count sqrt(1/2).
    soft = math.sqrt(0.5)
    first = soft / (1 + soft / 2)
    wide = first * soft + (1 - first) * (1 + 2 * soft) / 5
    assert ranking.vus_pr(score, truth, buffer=2) == pytest.approx((1 / 5 + 1 / 5 + wide) / 3)


def test_events_at_limited_false_alarms() -> None:
    truth = np.zeros(100, np.bool_)
    truth[40:50] = truth[80:85] = True
    score = np.zeros(100)
    score[45], score[82] = 5, 3
    score[10:14] = 4
    assert ranking.threshold_for_share([score], [truth], 0.0) == 4
    share = ranking.threshold_for_share([score], [truth], 0.05)
    assert np.count_nonzero((score > share) & ~truth) <= 0.05 * 85
    assert ranking.events_found([score > 4], [truth]) == (1, 2)
    assert ranking.events_found([score > share], [truth]) == (2, 2)
    # The four rows in sequence are one false alarm.
    assert ranking.false_alarms(score > share, truth) == 1
    assert ranking.threshold_for_alarms([score], [truth], days=1, per_day=1) == 0
    assert ranking.threshold_for_alarms([score], [truth], days=0.5, per_day=1) == 4


def test_few_alarms_in_many_rows_still_find_their_threshold() -> None:
    score = np.random.default_rng(0).random(100_000)
    truth = np.zeros(100_000, np.bool_)
    cut = ranking.threshold_for_alarms([score], [truth], days=10, per_day=1)
    assert 8 <= ranking.false_alarms(score > cut, truth) <= 10


def test_runs_and_halves() -> None:
    assert runs(np.array([1, 1, 0, 0, 1], np.bool_), 10) == ((10, 11), (14, 14))
    cases = [SuiteCase("x", np.arange(1), np.zeros((1, 1)), group=group) for group in "aababb"]
    assert halves(cases).tolist() == [0, 1, 0, 0, 1, 0]


def case(value: np.ndarray, warm: int = 0) -> SuiteCase:
    return SuiteCase("one", np.arange(len(value)) * 60_000, value, warm=warm)


def test_windowed_gaussian_is_the_normal_tail_of_the_rows_before() -> None:
    values = np.random.default_rng(0).normal(3, 2, (200, 1))
    score = judges.windowed_gaussian(case(values))
    assert score[0] == 0
    for row in (5, 50, 199):
        before = values[:row, 0]
        z = abs(values[row, 0] - before.mean()) / before.std()
        assert score[row] == pytest.approx(1 - 0.5 * math.erfc(z / math.sqrt(2)))


def test_windowed_gaussian_forgets() -> None:
    values = np.r_[np.zeros(3000), np.random.default_rng(0).normal(100, 1, 7000)][:, None]
    values[-1] = 110
    window = values[3500:9900, 0]  # the last 6,400 rows, renewed at every hundredth
    z = (110 - window.mean()) / window.std()
    assert judges.windowed_gaussian(case(values))[-1] == pytest.approx(1 - 0.5 * math.erfc(z / math.sqrt(2)))


def test_mean_z_is_fitted_to_the_rows_fed_first() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 3)) * [1, 10, 100]
    values[200, 1] = np.nan
    train = values[:100]
    z = np.abs(values - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(judges.mean_z(case(values, 100)), np.nan_to_num(z).mean(1))
    running = judges.mean_z(case(values))
    assert running[50] == pytest.approx(np.mean(np.abs(values[50] - values[:50].mean(0)) / values[:50].std(0)))


@pytest.mark.parametrize("name", judges.BASELINES)
def test_baselines_know_nothing_of_what_follows(name: str) -> None:
    values = np.random.default_rng(1).normal(size=(7000, 2))
    if name == "random":
        assert np.array_equal(judges.random(case(values)), judges.random(case(values)))
        return
    whole, prefix = (judges.BASELINES[name](case(part, warm=100)) for part in (values, values[:6700]))
    np.testing.assert_allclose(whole[:6700], prefix, atol=1e-9)
