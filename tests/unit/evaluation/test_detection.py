"""The tables of the detection suites, from scores made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream_gru.columns import Floats
from stream_gru.evaluation import detection, ranking
from stream_gru.evaluation.cases import Span, SuiteCase
from stream_gru.evaluation.streaming import Judged

ROWS, DAY = 1440, 60_000  # minutes of a day


def case(i: int, *windows: Span, warm: int = 0) -> SuiteCase:
    return SuiteCase(f"s{i}", np.arange(ROWS) * DAY, np.zeros((ROWS, 1)), windows, warm)


def judged(score: Floats) -> Judged:
    return Judged(score, score > 1, score, score > 2)


def noise(seed: int, marked: SuiteCase, lift: float) -> Floats:
    score = np.random.default_rng(seed).random(ROWS)
    score[marked.warm :] += lift * marked.labels
    return score


def test_each_series_counts_with_its_own_figures_and_the_mean_is_theirs() -> None:
    cases = [case(0, (300, 310), warm=100), case(1, (500, 600), warm=200), case(2)]
    scores = [noise(0, cases[0], 2), noise(1, cases[1], 0.3), noise(2, cases[2], 0)]
    tables = detection.ranking_tables("x", cases, [judged(score) for score in scores], {"again": scores}, None)
    ours = {str(row[1]): row[2:] for row in tables[-1].rows if row[0] == detection.OURS}
    assert list(ours) == ["s0", "s1"]  # nothing to find in the third
    for i in (0, 1):
        score, truth = scores[i][cases[i].warm :], cases[i].labels
        expected = [
            ranking.average_precision(score, truth),
            ranking.vus_pr(score, truth),
            ranking.best_f1(score, truth),
        ]
        np.testing.assert_allclose(np.array(ours[f"s{i}"]), expected)
    means = np.mean([np.array(ours[name], np.float64) for name in ("s0", "s1")], axis=0)
    for row in tables[0].rows[:2]:
        np.testing.assert_allclose(np.array(row[1:4]), means)
    assert ours["s0"][0] != ours["s1"][0]


def test_flags_are_counted_as_they_are() -> None:
    cases = [case(0, (300, 310)), case(1, (700, 705))]
    scores = [np.zeros(ROWS), np.zeros(ROWS)]
    scores[0][305] = 1.5
    scores[1][[10, 11, 12, 900]] = 3
    table = detection.ranking_tables("x", cases, [judged(score) for score in scores], {}, 2.5)[1]
    rows = {row[0]: row[1:] for row in table.rows}
    normal = 2 * ROWS - 17
    assert list(rows["is_anomaly"]) == ["1/2", pytest.approx(100 * 4 / normal), pytest.approx(1)]  # 2 in 2 days
    assert list(rows["alert"]) == ["0/2", pytest.approx(100 * 4 / normal), pytest.approx(1)]
    assert list(rows["anomaly_score > 2.5"]) == list(rows["alert"])


def test_one_threshold_for_all_limits_false_alarms_before_events_are_counted() -> None:
    cases = [case(0, (300, 310)), case(1, (700, 705))]
    scores = [np.zeros(ROWS), np.zeros(ROWS)]
    scores[0][305], scores[1][702] = 5, 3
    scores[0][[100, 102, 104, 106]] = 4  # above the second event: 4 alarms in 2 days, 4 of 2,863 rows
    row = detection.ranking_tables("x", cases, [judged(score) for score in scores], {}, None)[0].rows[0]
    assert list(row[5:]) == [0.5, 1.0, 0.5]


def test_nab_thresholds_of_one_half_are_applied_to_the_other(tmp_path: Path) -> None:
    cases = [case(0, (500, 599)), case(1, (500, 599))]
    scores = [np.zeros(ROWS), np.zeros(ROWS)]
    scores[0][500], scores[1][500], scores[1][1000:1004] = 3, 9, 4  # the first half's threshold lets four false ones in
    tables = detection.nab_tables(cases, [judged(score) for score in scores], {}, 8, tmp_path)
    tuned, transferred = ({str(row[0]): row[1:] for row in table.rows} for table in tables[:2])
    assert tuned["stream-gru"][0] == pytest.approx(100 * (4 - 4 * 0.11) / 4)
    assert tuned["stream-gru"][3] == pytest.approx(3)
    there = transferred["stream-gru: tuned on half A, scored on half B"][0]
    back = transferred["stream-gru: tuned on half B, scored on half A"][0]
    assert there == pytest.approx(100 * (2 - 0.44) / 2)
    assert back == pytest.approx(0)
    assert transferred["stream-gru: alert_score >= 8, all files"][0] == pytest.approx(50)
    assert transferred["stream-gru: alert_score >= 1, all files"][0] == tuned["stream-gru"][0]


def test_skab_pools_rows_and_tunes_on_the_other_half() -> None:
    cases = [case(i, (500, 599), warm=400) for i in range(2)]
    scores = [np.zeros(ROWS), np.zeros(ROWS)]
    scores[0][500:600], scores[1][550:600] = 3, 2
    scores[0][:400] = 9  # is not scored
    scores[1][700:725] = 2.5
    (table, _) = detection.skab_tables(cases, [judged(score) for score in scores], {}, 2.75)
    rows = {str(row[0]): row[1:] for row in table.rows}
    normal = 2 * 940
    f1 = 2 * 150 / (150 + 25 + 200)
    assert list(rows["stream-gru: is_anomaly"]) == pytest.approx([f1, 100 * 25 / normal, 25, None])
    assert list(rows["stream-gru: anomaly_score > 2.75"]) == pytest.approx([2 * 100 / 300, 0, 50, 2.75])
    assert rows["stream-gru: best threshold for these files"][3] == 2
    # 3 is best for the first half and finds nothing of the second; 2 of the second all of the first.
    assert list(rows["stream-gru: tuned on one half, scored on the other"])[:3] == pytest.approx([2 / 3, 0, 50])
