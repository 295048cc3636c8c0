"""Who is told what: hold, habituation, runs, shares of the features, and thresholds by expected alerts."""

from __future__ import annotations

import numpy as np
import pytest

from stream_gru.detection.alert import DEFAULT, Limits, Measured, Verdict, judge
from stream_gru.engine import row

MINUTE = 60_000
ONE = Limits((1e-1, 1e-9), (1.0, 1.0), (1e-1, 1e-9), (1.0, 1.0))  # every threshold is 1


def verdict(
    surprise: list[list[float]],
    deviation: list[list[float]],
    head: np.ndarray | None = None,
    *,
    judged: bool = True,
    seen: int = 10**12,
) -> Verdict:
    """On one reading of each of B series."""
    shape = np.shape(surprise)
    head = np.zeros(len(surprise), row.ALARM) if head is None else head
    interval, readings = np.full(shape[0], float(MINUTE)), np.full(shape[0], seen)
    return judge(
        Measured(np.array(surprise), np.array(deviation), np.full(shape, judged), interval, readings), head, ONE, 1.0
    )


def moment(found: float, interval: int, seen: int) -> Measured:
    """One reading of one series."""
    one = np.full((1, 1), found)
    return Measured(one, one, np.full((1, 1), True), np.array([float(interval)]), np.array([seen]))


def told(surprises: list[float]) -> np.ndarray:
    """The alert scores of one series, reading by reading."""
    head, out = np.zeros(1, row.ALARM), []
    for surprise in surprises:
        found = verdict([[surprise]], [[0.0]], head)
        head = found.head
        out.append(found.alert_score[0])
    return np.array(out)


def test_after_an_alert_only_a_clearly_larger_surprise_is_news() -> None:
    scores = told([2.0, 2.9, 0.0, 3.1, 3.1, *[2.0] * 73, 2.0, 2.0])
    assert np.flatnonzero(scores).tolist() == [0, 3, 79]
    assert scores[0] == 2.0


@pytest.mark.slow
def test_a_series_that_keeps_alerting_counts_less_until_it_has_been_quiet() -> None:
    scores = told([2.0] * 76 * 6)
    emitted = scores[scores > 0]
    assert len(emitted) == 6
    assert (np.diff(emitted) < 0).all()
    assert emitted[-1] < 0.65 * emitted[0]
    rested = told([2.0] * 76 * 6 + [0.0] * 20_000 + [2.0])
    assert rested[-1] == pytest.approx(2.0, rel=1e-3)


def test_a_run_is_open_while_the_series_deviates_and_is_closed_once() -> None:
    head, seen = np.zeros(1, row.ALARM), []
    for surprise, deviation in ((0.0, 0.5), (3.0, 0.5), (0.0, 2.0), (0.5, 1.5), (0.0, 0.9), (0.0, 0.1)):
        found = verdict([[surprise]], [[deviation]], head)
        head = found.head
        seen.append((found.is_anomaly[0], found.alert[0], found.closes[0]))
    flags, alerts, closes = zip(*seen, strict=True)
    assert flags == (False, True, True, True, False, False)
    assert alerts == (False, True, False, False, False, False)
    assert closes == (False, False, False, False, True, False)


def test_an_alert_is_always_an_anomaly_and_the_grade_grows_with_the_score() -> None:
    found = verdict([[0.5], [1.5], [4.0]], [[0.0], [0.2], [0.0]])
    assert found.alert.tolist() == found.is_anomaly.tolist() == [False, True, True]
    assert found.score.tolist() == found.alert_score.tolist() == [0.5, 1.5, 4.0]
    assert found.grade.tolist() == [0.0, pytest.approx(1 / 3), 0.75]


def test_features_are_judged_together_and_share_what_was_found() -> None:
    found = verdict([[0.0] * 3] * 3, [[0.9, 0.9, 0.9], [0.9, 0.0, 0.0], [3.0, 1.5, 0.0]])
    assert found.is_anomaly.tolist() == [True, False, True]
    assert found.score[1] == pytest.approx(0.9)
    assert found.score[2] >= 3
    np.testing.assert_allclose(found.attribution[0], [1 / 3] * 3)
    assert np.isnan(found.attribution[1]).all()
    np.testing.assert_allclose(found.attribution[2], [16 / 17, 1 / 17, 0.0])


def test_shares_are_those_of_what_made_the_score() -> None:
    found = verdict([[2.0, 0.0], [2.0, 0.0]], [[0.0, 0.9], [0.0, 5.0]])
    np.testing.assert_allclose(found.attribution, [[1, 0], [0, 1]])


def test_what_is_not_judged_says_nothing() -> None:
    found = verdict([[9.0]], [[9.0]], judged=False)
    assert (found.score[0], found.alert_score[0], found.is_anomaly[0]) == (0, 0, False)
    assert found.head["habit"][0] == 0


def test_a_young_series_needs_a_larger_surprise() -> None:
    scores = [verdict([[2.0]], [[0.0]], seen=seen).alert_score[0] for seen in (150, 200, 1000, 10**6)]
    assert scores == sorted(scores)
    assert scores[1] == pytest.approx(1.0)
    assert scores[3] == pytest.approx(2.0)
    assert verdict([[0.0]], [[2.0]], seen=150).score[0] == 2.0


def test_thresholds_follow_the_table_and_end_with_it() -> None:
    rates = np.array([1.0, *DEFAULT.rates, DEFAULT.rates[-1] / 10])
    surprise, deviation = DEFAULT.at(rates, DEFAULT.shares[2])
    np.testing.assert_allclose(surprise, [DEFAULT.surprise[0], *DEFAULT.surprise, surprise[-1]])
    assert surprise[-1] > 1.3 * DEFAULT.surprise[-1]
    assert deviation == pytest.approx(DEFAULT.deviation[2])
    for column in DEFAULT:
        assert (np.diff(column) > 0).all() or (np.diff(column) < 0).all()


def test_frequent_readings_need_a_larger_surprise_each_for_as_many_alerts_a_day() -> None:
    scores = [
        judge(moment(0.1, interval, 500), np.zeros(1, row.ALARM), DEFAULT, 0.2).alert_score[0]
        for interval in (1000, 60_000, 300_000, 3_600_000)
    ]
    assert scores[0] < scores[1] < scores[2] == pytest.approx(scores[3])
