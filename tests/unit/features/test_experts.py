from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from stream_gru.columns import Floats, Ints
from stream_gru.features import OBSERVED, Arrival, Experts, FeatureView, Light, Observation, RowTable, observe
from stream_gru.features.expert_tables import ANCHORS, CANDIDATES, INPUTS, PARTS, SMOOTHERS

HOUR, MINUTE = 3_600_000, 60_000
MONDAY = 1_699_833_600_000  # 13 November 2023, 0:00 UTC
DAY, WEEK, CHANGE = 3, 4, 5  # moves: profiles of day and week, the day's change
LINE, REGRESSION, SMOOTHER = 9, 10, 11


class Run:
    """Series through the features, one reading of each after another."""

    def __init__(self, n: int, steps: npt.ArrayLike = ((1,),)) -> None:
        self.set, self.n = Experts(), n
        self.state = torch.zeros(self.set.size, n)
        self.flat = torch.full((n * self.set.table,), torch.nan)
        self.steps = torch.tensor(steps, dtype=torch.float32)
        self.last, self.base = np.full(n, np.nan), np.full(n, np.nan)
        self.since, self.seen = np.zeros(n, np.int64), np.zeros(n, np.int64)

    def read(self, y: npt.ArrayLike, time: int) -> FeatureView:
        y, now = np.broadcast_to(np.asarray(y, float), self.n), np.full(self.n, time)
        columns = observe(Arrival(y, now, self.last, self.since, self.seen, self.base))
        table = RowTable(self.flat, torch.arange(self.n) * self.set.table)
        self.state, view = self.set.advance(self.state, Observation.of(torch.from_numpy(columns)), table, self.steps)
        self.base = np.where(np.isnan(self.base), y, self.base)
        self.last, self.since, self.seen = y, now, self.seen + 1
        return view

    def all(self, y: np.ndarray, every: int = HOUR, start: int = MONDAY) -> list[FeatureView]:
        return [self.read(value, start + i * every) for i, value in enumerate(y)]


def moves(views: list[FeatureView], anchor: int, step: int = 0) -> Floats:
    return np.array([view.moves[step, anchor, 0].item() for view in views])


def test_the_profile_of_the_day_is_yesterday_at_the_hour_of_each_step() -> None:
    day = np.random.default_rng(0).normal(20, 3, 24)
    y = np.tile(day, 8)
    views = Run(1, [[1], [7], [30]]).all(y)
    for i, view in enumerate(views[48:140], 48):
        for k, step in enumerate((1, 7, 30)):
            assert y[i] + view.moves[k, DAY, 0] == pytest.approx(y[i + step], abs=1e-4)
            assert y[i] + view.moves[k, CHANGE, 0] == pytest.approx(y[i + step], abs=1e-4)


def test_the_profile_of_the_week_knows_weekends() -> None:
    y = np.tile(np.repeat([10.0, 10, 10, 10, 10, 2, 3], 24), 3)
    views = Run(1).all(y)
    assert y[168:-1] + moves(views, WEEK)[168:-1] == pytest.approx(y[169:], abs=1e-4)
    assert np.abs(y[168:-1] + moves(views, DAY)[168:-1] - y[169:]).max() > 1


@pytest.mark.slow
def test_a_profile_is_interpolated_between_hours_of_many_readings() -> None:
    at = np.arange(5 * 288)
    y = np.sin(at * 2 * np.pi / 288)
    views = Run(1, [[1], [36]]).all(y, every=5 * MINUTE)
    wrong = y[600:1400] + moves(views, DAY, 1)[600:1400] - y[636:1436]
    assert np.abs(wrong).max() < 0.02


def test_a_level_that_moved_is_met_by_the_change_of_the_day() -> None:
    day = np.sin(np.arange(24) * 2 * np.pi / 24)
    y = np.tile(day, 8)
    y[150:] += 100
    views = Run(1).all(y)
    assert y[152] + views[152].moves[0, CHANGE, 0] == pytest.approx(y[153], abs=1e-3)
    assert abs(y[152] + views[152].moves[0, DAY, 0] - y[153]) > 50


def test_a_gap_leaves_the_profile_at_its_hours() -> None:
    day = np.random.default_rng(1).normal(0, 3, 24)
    run = Run(1)
    kept = [i for i in range(24 * 9) if not 100 <= i < 131]
    for i in kept:
        view = run.read(day[i % 24], MONDAY + i * HOUR)
        if i > 133:
            assert day[i % 24] + view.moves[0, DAY, 0] == pytest.approx(day[(i + 1) % 24], abs=0.2), i


@pytest.mark.slow
def test_the_regression_learns_what_depends_on_the_last_differences() -> None:
    rng = np.random.default_rng(2)
    dx = np.zeros(1500)
    for t in range(2, len(dx)):
        dx[t] = 1.2 * dx[t - 1] - 0.8 * dx[t - 2] + rng.normal(0, 0.1)
    y = np.cumsum(dx)
    views = Run(1).all(y, every=1000)
    miss = np.abs(moves(views, REGRESSION)[500:-1] - dx[501:])
    assert miss.mean() < 0.095  # the noise has a mean of 0.08
    assert np.abs(dx[501:]).mean() > 0.15


@pytest.mark.slow
def test_the_best_smoother_follows_what_suits_the_series() -> None:
    noise = np.random.default_rng(3).normal(size=600)
    slow = moves(Run(1).all(noise, every=1000), SMOOTHER)
    assert np.abs(noise[300:] + slow[300:]).mean() < 0.4  # near the mean
    walk = np.cumsum(noise)
    quick = moves(Run(1).all(walk, every=1000), SMOOTHER)
    assert np.abs(quick[300:]).mean() < 0.4  # near the last value


def test_a_line_goes_on_at_any_step() -> None:
    y = 50 + 0.25 * np.arange(300)
    views = Run(1, [[1], [36]]).all(y, every=1000)
    assert moves(views, LINE, 0)[150:] == pytest.approx(np.full(150, 0.25), rel=0.02)
    assert moves(views, LINE, 1)[150:] == pytest.approx(np.full(150, 9.0), rel=0.02)


def test_errors_are_the_running_errors_of_the_anchors() -> None:
    run = Run(1)
    y = 5 + np.tile([0.0, 1.0], 200)
    views = run.all(y, every=1000)
    errors = views[-1].x[run.set.errors, 0].exp() * 1.0  # the mean |dx| is 1
    assert errors[0] == pytest.approx(1.0, rel=0.05)  # the last value
    assert errors[1] == pytest.approx(0.5, rel=0.05)  # the mean
    assert views[-1].unit.item() == pytest.approx(float(errors.min()), rel=1e-3)


def test_each_series_may_have_its_own_steps() -> None:
    y = np.random.default_rng(4).normal(size=(80, 3)).cumsum(0)
    together, common = Run(3, [[1, 1, 1], [2, 9, 30]]), Run(3, [[1], [2], [9], [30]])
    for i, now in enumerate(y):
        own, every = together.read(now, MONDAY + i * HOUR), common.read(now, MONDAY + i * HOUR)
    for series in range(3):
        torch.testing.assert_close(own.moves[1, :, series], every.moves[1 + series, :, series])


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_scale_and_level_change_nothing_but_the_scale(scale: float) -> None:
    y = np.random.default_rng(5).normal(size=300).cumsum()
    plain, scaled = Run(1).all(y), Run(1).all(scale * y)
    for a, b in zip(plain, scaled, strict=True):
        torch.testing.assert_close(b.moves / scale, a.moves, rtol=1e-3, atol=1e-4)
    far = Run(1).all(1e7 + y)
    torch.testing.assert_close(far[-1].moves, plain[-1].moves, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "y", [[0.0] * 50, [7.0] * 50, [0, 1e30, -1e30, 0, 0, 1e-30] * 8, [1.0], [1e12 + i for i in range(50)]]
)
def test_whatever_comes_everything_stays_finite(y: list[float]) -> None:
    run, time = Run(1, [[1], [36]]), MONDAY
    for i, value in enumerate(y):
        time += HOUR * (1 if i % 7 else 10_000)
        view = run.read(value, time)
        assert all(bool(part.isfinite().all()) for part in view), i
        assert bool(run.state.isfinite().all()), i


def test_series_do_not_touch_each_other() -> None:
    y = np.random.default_rng(6).normal(size=(60, 4)).cumsum(0)
    together, alone = Run(4), Run(1)
    for i, now in enumerate(y):
        every, one = together.read(now, MONDAY + i * HOUR), alone.read(now[2], MONDAY + i * HOUR)
    torch.testing.assert_close(every.x[:, 2], one.x[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together.flat.view(4, -1)[2], alone.flat, equal_nan=True)


def test_an_observation_has_the_week_and_the_height_above_the_base() -> None:
    def times(*hours: float) -> Ints:
        return np.array([MONDAY + round(hour * HOUR) for hour in hours])

    y, nan = np.array([5.0, 7.0, 9.0]), np.nan
    arrival = Arrival(
        y, times(0, 25.5, 167.75), np.array([nan, 6, 9]), times(0, 24.5, 167), np.arange(3), np.array([nan, 4, 4])
    )
    columns = observe(arrival)
    assert columns.shape == (OBSERVED, 3)
    seen = Observation.of(torch.from_numpy(columns))
    assert seen.week[0].tolist() == pytest.approx([0, 25.5, 167.75], abs=1e-4)
    assert seen.height[0].tolist() == [0, 3, 5]
    assert seen.dx[0].tolist() == [0, 1, 0]
    assert seen.unchanged[0].tolist() == [1, 0, 1]


def test_the_tables_of_what_is_kept_and_shown_are_in_order() -> None:
    """What rows that are stored, and weights that are trained, already go by."""
    assert [Experts.size, Experts.inputs, Experts.anchors, Experts.table] == [98, 43, 13, 192]
    assert Experts.errors == slice(15, 28)
    for names in ([row.name for row in table] for table in (SMOOTHERS, ANCHORS, INPUTS)):
        assert len(set(names)) == len(names)
    assert all(len(part.rates) in {0, part.floats} for part in PARTS.values())
    assert PARTS["smoother_errors"].floats == len(SMOOTHERS[CANDIDATES])
    assert [Light.size, Light.inputs, Light.anchors, Light.table] == [22, 27, 8, 0]
    assert Light.errors == slice(10, 18)
