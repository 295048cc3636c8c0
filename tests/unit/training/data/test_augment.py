from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_gru.training.data import augment
from stream_gru.training.data.missing import How
from stream_gru.training.data.windows import Windows
from stream_gru.training.recipe import Augment

LENGTHS = [200, 120, 2]


def windows(filled: bool = False) -> Windows:
    """A sine, a line and a short stump, with covariates that count the readings."""
    position = np.minimum(np.arange(200), np.array(LENGTHS)[:, None] - 1)
    value = np.stack([np.sin(position[0] / 9), 3.0 * position[1], position[2] + 50.0])
    known = np.arange(200) < np.array(LENGTHS)[:, None]
    if filled:
        known[:2, 20:30] = False
    return Windows(
        1_000 * position, value, np.array(LENGTHS), known, np.arange(3), position[..., None].astype(np.float64)
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_whole(made: Windows) -> None:
    """No missing value; each window repeats its last reading behind its end, where nothing is known."""
    position = np.arange(made.value.shape[1])
    assert np.isfinite(made.value).all()
    assert made.value.shape[1] == made.length.max()
    for row, length in enumerate(made.length.tolist()):
        for column in (made.timestamp, made.value):
            assert (column[row, length:] == column[row, length - 1]).all()
        assert not made.known[row, position >= length].any()
        assert (np.diff(made.timestamp[row, :length]) > 0).all()


def test_noise_has_the_size_that_was_asked_for() -> None:
    before = windows()
    made = augment.noise(before, 0.5, rng())
    assert_whole(made)
    for row, length in ((0, 200), (1, 120)):
        step = np.abs(np.diff(before.value[row, :length])).mean()
        added = (made.value - before.value)[row, :length]
        assert added.std() == pytest.approx(0.5 * step, rel=0.25)
        assert abs(added.mean()) < 0.2 * step
    assert before.value[0, 0] == 0  # what it came from is as it was


def test_a_warp_runs_faster_and_slower_between_the_same_ends() -> None:
    before = windows()
    made = augment.warp(before, 0.8, rng(1))
    assert_whole(made)
    np.testing.assert_array_equal(made.timestamp, before.timestamp)
    line = made.value[1, :120]
    assert line[0] == 0
    assert line[-1] == pytest.approx(3 * 119)
    speed = np.diff(line) / 3
    assert (speed > 0).all()
    assert speed.max() / speed.min() > 1.5
    assert speed.max() / speed.min() < 1.8**2 + 1e-6
    assert np.abs(np.diff(speed)).max() < 0.2  # it changes smoothly
    np.testing.assert_allclose(made.covariates[1, :120, 0], np.floor(line / 3 + 1e-9), atol=1)


def test_a_warp_knows_no_more_than_what_it_came_from() -> None:
    made = augment.warp(windows(filled=True), 0.5, rng(2))
    line, known = made.value[1, :120] / 3, made.known[1, :120]
    assert not known[(line > 20) & (line < 29)].any()
    assert known[(line < 19) | (line > 30)].all()


@given(share=st.floats(0.05, 0.6), seed=st.integers(0, 50))
def test_readings_taken_away_are_left_out(share: float, seed: int) -> None:
    before = windows()
    made = augment.mask(before, share, "mask", rng(seed))
    assert_whole(made)
    for row, length in enumerate(made.length.tolist()):
        places = np.searchsorted(before.timestamp[row, : before.length[row]], made.timestamp[row, :length])
        np.testing.assert_array_equal(made.value[row, :length], before.value[row, places])
        np.testing.assert_array_equal(made.covariates[row, :length, 0], places)
        assert places[0] == 0
        assert made.known[row, :length].all()
    assert abs(1 - made.length[0] / 200 - share) < 0.15


def test_readings_taken_away_are_filled_in_and_not_learned() -> None:
    before = windows(filled=True)
    repeated = augment.mask(before, 0.3, "forward", rng(3))
    for row, length in enumerate(LENGTHS[:2]):
        for place in np.flatnonzero(~repeated.known[row, :length]):
            assert repeated.value[row, place] == repeated.value[row, place - 1]
    for how in ("interpolate", "forecast"):
        lined = augment.mask(before, 0.3, how, rng(3))
        assert_whole(lined)
        inside = slice(0, int(np.flatnonzero(lined.known[1])[-1]) + 1)
        np.testing.assert_allclose(lined.value[1, inside], before.value[1, inside])
        np.testing.assert_array_equal(lined.known, repeated.known)
    gone = before.known & ~repeated.known
    assert 0.2 < gone[0].mean() < 0.4
    assert not gone[:, 0].any()


@pytest.mark.parametrize("how", ["mask", "forward", "interpolate"])
def test_all_of_it_together_can_be_repeated(how: How) -> None:
    every = Augment(noise=0.3, mask=0.2, warp=0.5)
    made, again = (augment.augment(windows(filled=how != "mask"), every, how, rng(4)) for _ in range(2))
    assert_whole(made)
    for field in fields(Windows):
        np.testing.assert_array_equal(getattr(made, field.name), getattr(again, field.name))
    other = augment.augment(windows(), every, how, rng(5))
    assert other.value.shape != made.value.shape or (other.value != made.value).any()
    if how == "forward":  # still the value before, noise and all
        for place in np.flatnonzero(~made.known[0, : made.length[0]]):
            assert made.value[0, place] == made.value[0, place - 1]


@pytest.mark.parametrize("how", [Augment(noise=0.5), Augment(warp=0.5)])
def test_what_repeats_the_value_before_still_does(how: Augment) -> None:
    made = augment.augment(windows(filled=True), how, "forward", rng(6))
    filled = np.flatnonzero(~made.known[0, : made.length[0]])
    assert len(filled) > 5
    for place in filled:
        assert made.value[0, place] == made.value[0, place - 1]


def test_nothing_asked_for_changes_nothing() -> None:
    before = windows(filled=True)
    assert augment.augment(before, Augment(), "interpolate", rng()) == before
