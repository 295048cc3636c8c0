"""Relative errors of forecasts, CRPS, coverage, and the forecasting baselines."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from stream_gru.columns import Bools, Floats
from stream_gru.errors import DataError
from stream_gru.evaluation import accuracy, forecasters, forecasting, origins, panel
from stream_gru.evaluation.accuracy import assess, crps
from stream_gru.evaluation.cases import SuiteCase
from stream_gru.evaluation.panel import Panel
from stream_gru.evaluation.streaming import Predicted

HOUR = 3_600_000
DAYS = 20


def series(*values: Floats, groups: str = "") -> list[SuiteCase]:
    return [
        SuiteCase(f"s{i}", np.arange(len(v)) * HOUR, np.asarray(v, np.float64)[:, None], group=groups[i : i + 1] or "a")
        for i, v in enumerate(values)
    ]


def counted(data: Panel) -> Bools:
    return np.isfinite(data.y) & np.isfinite(data.last)


def given(data: Panel, low: Floats, median: Floats, high: Floats) -> Predicted:
    quantiles = (np.stack([low, median, high], axis=1) - data.last[:, None]).astype(np.float32)
    return Predicted((0.05, 0.5, 0.95), quantiles, (1,), np.zeros((len(data.y), 1), np.float32))


def test_a_panel_knows_the_last_value_the_target_and_the_day() -> None:
    data = panel.panel(series(np.array([1.0, np.nan, 3.0, 4.0]), np.array([5.0, 6.0])))
    np.testing.assert_array_equal(data.last, [np.nan, 1, 1, 3, np.nan, 5])
    np.testing.assert_array_equal(data.known(), [1, 1, 3, 4, 5, 6])
    np.testing.assert_array_equal(data.target(1), [np.nan, 3, 4, np.nan, 6, np.nan])
    np.testing.assert_array_equal(data.target(2), [3, 4, np.nan, np.nan, np.nan, np.nan])
    assert data.season.tolist() == [24, 24]
    assert data.half.tolist() == [0, 1]


def test_mase_is_the_error_over_that_of_the_last_value() -> None:
    data = panel.panel(series(np.array([0.0, 2.0, 4.0, 6.0]), np.array([1.0, 1.0, 1.0, 1.0])))
    median = np.array([0.0, 1.0, 4.0, 6.5, 1, 1, 1, 1])
    found = assess(data, given(data, median - 1, median, median + 1), counted(data))
    assert found.mase[0] == pytest.approx((1 + 0 + 0.5) / 6)
    assert np.isnan(found.mase[1])  # never changes
    assert found.by_points[1, 8][0] == found.mase[0]
    assert np.isnan(found.by_points[8, 16]).all()


def test_small_moves_of_large_values_are_not_lost() -> None:
    values = 1e12 + np.random.default_rng(0).normal(0, 1, 400).cumsum()
    assert errors("last value", values)[0] == pytest.approx(1)
    assert errors("AR by RLS", values)[0] == pytest.approx(errors("AR by RLS", values - 1e12)[0], rel=1e-2)


def test_rows_that_do_not_count_change_nothing() -> None:
    data = panel.panel(series(np.array([0.0, 2.0, np.nan, 6.0, 8.0])))
    median = np.array([0.0, 1.0, 99.0, 6.0, 99.0])
    judged = counted(data) & (np.arange(5) < 4)
    assert assess(data, given(data, median, median, median), judged).mase[0] == pytest.approx(1 / (2 + 4))


def test_means_are_geometric_over_series_and_then_over_sets() -> None:
    ratios = np.array([0.5, 2.0, 8.0, np.nan])
    groups = ("x", "x", "y", "y")
    everything = np.ones(4, np.bool_)
    assert panel.by_group(groups, ratios, everything) == {"x": pytest.approx(1), "y": pytest.approx(8)}
    assert panel.overall(groups, ratios, everything) == pytest.approx(math.sqrt(8))
    assert panel.overall(groups, ratios, np.array([True, False, False, False])) == pytest.approx(0.5)


def test_crps_of_a_point_is_its_absolute_error() -> None:
    y = np.array([1.0, -2.0, 5.0])
    point = np.zeros((3, 3), np.float32)
    np.testing.assert_allclose(crps(y, Predicted((0.05, 0.5, 0.95), point, (), point)), np.abs(y))


def test_crps_of_few_quantiles_is_that_of_all_where_the_distribution_is_normal() -> None:
    normal = NormalDist(2, 3)
    y = np.random.default_rng(0).normal(2, 3, 100)

    def of(levels: tuple[float, ...]) -> Floats:
        rows = np.tile([normal.inv_cdf(level) for level in levels], (len(y), 1)).astype(np.float32)
        return crps(y, Predicted(levels, rows, (), rows))

    by_hand = np.zeros(100)
    for level in accuracy.LEVELS:
        below = y - normal.inv_cdf(level)
        by_hand += 2 * np.where(below > 0, level * below, (level - 1) * below) / len(accuracy.LEVELS)
    np.testing.assert_allclose(of(accuracy.LEVELS), by_hand, rtol=1e-5)
    np.testing.assert_allclose(of((0.05, 0.5, 0.95)), by_hand, rtol=1e-5)


def test_all_given_quantiles_are_used_and_better_ones_score_better() -> None:
    y = np.random.default_rng(0).exponential(1, 5000)
    true = [-math.log(1 - level) for level in accuracy.LEVELS]

    def of(levels: tuple[float, ...]) -> float:
        rows = np.tile([true[accuracy.LEVELS.index(level)] for level in levels], (len(y), 1)).astype(np.float32)
        return float(crps(y, Predicted(levels, rows, (), rows)).mean())

    assert of(accuracy.LEVELS) < of((0.05, 0.5, 0.95)) - 1e-3


def test_coverage_counts_from_the_64th_point_and_the_bounds_belong_to_it() -> None:
    n = 164
    data = panel.panel(series(np.arange(n, dtype=np.float64)))
    low, high = data.y - 1, np.where(np.arange(n) < 114, data.y, data.y - 0.5)
    high[:64] -= 9  # before, it does not count
    assert assess(data, given(data, low, low, high), counted(data)).coverage[0] == pytest.approx(0.5)


def cycle(n: int, seed: int, noise: float = 0.0) -> Floats:
    return 50 + 10 * np.sin(np.arange(n) * 2 * np.pi / 24) + np.random.default_rng(seed).normal(0, 1, n) * noise


@pytest.mark.parametrize("name", forecasters.BASELINES)
def test_baselines_know_nothing_of_what_follows_nor_of_each_other(name: str) -> None:
    cases = series(cycle(200, 0, 1), cycle(120, 1, 2), cycle(300, 2))
    cases[0].value[40:44] = np.nan
    make = forecasters.BASELINES[name]
    data = panel.panel(cases)
    whole = forecasters.predict(make, data, (1, 12))
    for i, n in ((0, 150), (1, 120), (2, 77)):
        alone = panel.panel([SuiteCase("alone", cases[i].timestamp[:n], cases[i].value[:n])])
        found = forecasters.predict(make, alone, (1, 12))
        part = slice(int(data.first[i]), int(data.first[i]) + n)
        np.testing.assert_allclose(found.quantiles, whole.quantiles[part], rtol=1e-5)
        np.testing.assert_allclose(found.medians, whole.medians[part], rtol=1e-5)


def errors(name: str, values: Floats) -> Floats:
    data = panel.panel(series(values))
    return assess(data, forecasters.predict(forecasters.BASELINES[name], data, (1, 12)), counted(data)).mase


def test_each_baseline_is_good_at_what_it_is_made_for() -> None:
    rng = np.random.default_rng(3)
    season, noise = cycle(24 * DAYS, 0), rng.normal(0, 1, 500)
    oscillating = np.empty(500)
    oscillating[0] = 0
    for i in range(1, 500):
        oscillating[i] = -0.8 * oscillating[i - 1] + noise[i]
    assert errors("seasonal naive", season)[0] < 0.1
    assert errors("Holt-Winters", season)[0] < 0.1
    assert errors("Holt-Winters", np.arange(500) * 0.1 + cycle(500, 1))[0] < 0.4
    assert errors("EWMA", noise)[0] < 0.8
    assert errors("AR by RLS", oscillating)[0] < 0.6
    assert errors("AR by RLS", noise.cumsum())[0] < 1.1  # gated: no worse than the last value by much
    assert errors("last value", noise)[0] == pytest.approx(1)


def test_intervals_of_the_baselines_cover_what_they_say() -> None:
    rng = np.random.default_rng(0)
    data = panel.panel(series(*(rng.normal(0, 1, 1500) * s for s in (0.1, 1, 50))))
    for name in ("last value", "EWMA", "AR by RLS"):
        found = assess(data, forecasters.predict(forecasters.BASELINES[name], data, (1,)), counted(data))
        np.testing.assert_allclose(found.coverage, 0.9, atol=0.03)


def test_steps_ahead_are_held_against_their_targets() -> None:
    data = panel.panel(series(cycle(24 * DAYS, 0)))
    found = forecasters.predict(forecasters.SeasonalNaive, data, (1, 12, 36))
    now = data.y[100:300]
    np.testing.assert_allclose(found.medians[100:300, 1], data.y[112:312] - now, atol=1e-4)
    np.testing.assert_allclose(found.medians[100:300, 2], data.y[136:336] - now, atol=1e-4)
    by_step = assess(data, found, counted(data)).by_step
    assert list(by_step) == [1, 12, 36]
    assert max(by_step[12][0], by_step[36][0]) < 0.2


def test_the_tables_say_what_was_left_out_and_which_half_is_held_out() -> None:
    rng = np.random.default_rng(0)
    cases = series(*(rng.normal(0, 1, 300).cumsum() for _ in range(4)), np.full(300, 7.0), groups="aabbb")
    data = panel.panel(cases)
    bad = np.where(data.half[data.series] == 1, 3.0, 0.0)
    median = np.nan_to_num(data.last)
    ours = given(data, median - 2 - bad, median + bad, median + 2 + bad)
    tables = {table.title: table for table in forecasting.tables(cases, ours)}
    totals = next(table for title, table in tables.items() if title.startswith("one step ahead, "))
    assert "4 series; 1 that never change" in totals.note
    name, mase, _, held, _ = totals.rows[0]
    assert isinstance(held, float)
    assert name == "stream-gru"
    assert mase == pytest.approx(math.sqrt(held), rel=0.1)  # the other half: 1
    assert held > 2
    assert [row[0] for row in totals.rows[1:]] == list(forecasters.BASELINES)
    assert tables["MASE by data set"].columns == ("forecaster", "a", "b")


def test_m4_by_its_own_metrics() -> None:
    train, test = cycle(24 * 10, 0), cycle(24 * 12, 0)[-48:]
    case = SuiteCase("H1", np.arange(288) * HOUR, np.r_[train, test * 1.1][:, None], warm=240)
    made = {1: np.array([test[0]])}
    smape, mase = origins._errors([case], made, [1])  # off by 10% of the smaller one
    assert smape == pytest.approx(200 * 0.1 / 2.1)
    noisy = SuiteCase("H2", case.timestamp, case.value + np.random.default_rng(0).normal(0, 1, (288, 1)), warm=240)
    y = noisy.value[:240, 0]
    scale = np.mean(np.abs(y[24:] - y[:-24]))
    assert origins._errors([noisy], made, [1])[1] == pytest.approx(abs(noisy.value[240, 0] - test[0]) / scale)
    factors = origins._naive2([case])
    np.testing.assert_allclose([factors[step][0] for step in range(1, 49)], test, rtol=0.02)  # it knows the season
    assert mase > 1e6  # nothing changed from day to day


def test_ett_is_standardised_by_its_first_months_and_scored_in_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, row in (("ETT_TRAIN", 300), ("ETT_TEST", 400), ("ETT_END", 600)):
        monkeypatch.setattr(origins, name, row)
    values = np.random.default_rng(0).normal(5, 3, origins.ETT_END + 100).cumsum()
    values[origins.ETT_END :] = 1e9  # past what is scored
    case = SuiteCase("OT", np.arange(len(values)) * HOUR, values[:, None], group="ETTh1")
    data = panel.panel([case])
    zeros = np.zeros((len(data.y), 1), np.float32)
    (table,) = origins.ett_tables([case], Predicted((0.5,), zeros, (1,), zeros))
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    moves = np.diff(values[origins.ETT_TEST - 1 : origins.ETT_END]) / values[: origins.ETT_TRAIN].std()
    np.testing.assert_allclose(np.array(rows["stream-gru", "1"]), [np.mean(moves**2), np.mean(np.abs(moves))])
    assert rows["last value", "1"] == rows["stream-gru", "1"]
    by_hand = [
        abs(values[origin + step] - values[origin - 23 + (step - 1) % 24])
        for origin in range(399, 600)
        for step in range(1, 97)
        if origin + step < 600
    ]
    absolute = rows["seasonal naive", "mean of 1..96"][1]
    assert absolute == pytest.approx(np.mean(by_hand) / values[: origins.ETT_TRAIN].std())
    with pytest.raises(DataError, match="fewer rows"):
        origins.ett_tables([case.head(500)], Predicted((0.5,), zeros[:500], (1,), zeros[:500]))
