from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_gru.errors import DataError
from stream_gru.training.data.batches import group
from stream_gru.training.data.missing import fill
from stream_gru.training.data.series import Series
from stream_gru.training.data.windows import Filled, Spans, Tape, Windows, join

MINUTE = 60_000


def series(size: int, index: int = 0, gaps: tuple[int, ...] = ()) -> Series:
    """Each value names its series and its place, so that a window shows where it was cut."""
    value = index * 10_000 + np.arange(float(size))
    value[list(gaps)] = np.nan
    extras = np.c_[value * 2, np.full(size, index)]
    return Series(np.arange(size) * MINUTE + index, value, index % 2, extras, f"s{index}")


def tape(*sizes: int) -> Tape:
    return Tape(fill([series(size, index) for index, size in enumerate(sizes)], "mask"))


def assert_cut_from(windows: Windows, sources: list[Filled]) -> None:
    """Every window is a slice of its series, in order of time, and repeats its last reading behind it."""
    for row, length in enumerate(windows.length.tolist()):
        source = sources[int(windows.value[row, 0] // 10_000)]
        start = int(np.searchsorted(source.timestamp, windows.timestamp[row, 0]))
        part = slice(start, start + length)
        np.testing.assert_array_equal(windows.timestamp[row, :length], source.timestamp[part])
        np.testing.assert_array_equal(windows.value[row, :length], source.value[part])
        np.testing.assert_array_equal(windows.known[row, :length], source.known[part])
        np.testing.assert_array_equal(windows.covariates[row, :length], source.covariates[part])
        assert windows.feature[row] == source.feature
        assert (np.diff(windows.timestamp[row, :length]) > 0).all()
        assert (windows.value[row, length:] == windows.value[row, length - 1]).all()
        assert (windows.timestamp[row, length:] == windows.timestamp[row, length - 1]).all()
        assert not windows.known[row, length:].any()


sizes = st.lists(st.integers(2, 60), min_size=1, max_size=6)


@given(sizes=sizes, length=st.integers(2, 40), stride=st.integers(1, 50))
def test_sliding_windows_cover_their_series(sizes: list[int], length: int, stride: int) -> None:
    reel = tape(*sizes)
    spans = reel.sliding(length, stride)
    begin = np.cumsum([0, *sizes])
    for index, size in enumerate(sizes):
        mine = spans.series == index
        start = spans.start[mine] - begin[index]
        assert (spans.length[mine] == min(length, size)).all()
        assert start[0] == 0
        assert start[-1] + spans.length[mine][-1] == size
        assert (np.diff(start)[:-1] == stride).all()
        assert (np.diff(start) <= stride).all()
        if stride <= length:
            covered = (start[:, None] + np.arange(min(length, size))).ravel()
            assert set(covered) == set(range(size))
    assert_cut_from(reel.cut(spans), fill([series(size, i) for i, size in enumerate(sizes)], "mask"))


@given(
    sizes=sizes,
    length=st.integers(2, 40),
    seed=st.integers(0, 99),
    gaps=st.sets(st.integers(0, 59), max_size=40),
)
def test_windows_anywhere_are_slices_that_begin_with_a_reading(
    sizes: list[int], length: int, seed: int, gaps: set[int]
) -> None:
    recorded = [series(size, i, tuple(g for g in gaps if g < size - 1)) for i, size in enumerate(sizes)]
    sources = fill(recorded, "interpolate")
    reel = Tape(sources)
    assert len(reel) == sum(np.isfinite(one.value).sum() for one in recorded)
    for spans in (reel.anywhere(20, length, np.random.default_rng(seed)), reel.sliding(length, 3)):
        windows = reel.cut(spans)
        assert_cut_from(windows, sources)
        assert windows.known[:, :1].all()
        assert (windows.length <= length).all()
        assert windows.value.shape[1] == windows.length.max(initial=0)


def test_a_series_counts_by_its_readings() -> None:
    spans = tape(900, 100).anywhere(2000, 10, np.random.default_rng(0))
    assert 0.86 < (spans.series == 0).mean() < 0.94
    assert {int(s) for s in spans.start[spans.series == 1]} >= {900, 990}


def test_windows_taken_and_joined_keep_their_readings() -> None:
    reel = tape(30, 12, 50)
    every = Spans(np.arange(3), np.array([0, 30, 42]), np.array([30, 12, 50]))
    windows = reel.cut(every)
    assert windows.value.shape == (3, 50)
    short = windows.take(np.array([1, 0]))
    assert short.value.shape == (2, 30)
    assert short.length.tolist() == [12, 30]
    again = join([short, windows.take(np.array([2]))])
    sources = fill([series(size, i) for i, size in enumerate((30, 12, 50))], "mask")
    assert_cut_from(again, sources)
    assert again.length.tolist() == [12, 30, 50]


lengths = st.lists(st.integers(1, 64), max_size=80).map(lambda many: np.array(many, np.int64))


@given(length=lengths, tokens=st.integers(64, 400), seed=st.integers(0, 99))
def test_a_batch_never_exceeds_its_tokens(length: np.ndarray, tokens: int, seed: int) -> None:
    groups = group(length, np.random.default_rng(seed), 1, tokens)
    assert sorted(np.concatenate([np.empty(0, np.int64), *groups])) == list(range(len(length)))
    for rows in groups:
        assert 0 < len(rows) * length[rows].max() <= tokens
    # None could have taken the next longer window too.
    ordered = sorted(groups, key=lambda rows: (length[rows].min(), length[rows].max(), -len(rows)))
    for rows, following in pairwise(ordered):
        assert (len(rows) + 1) * length[following].min() > tokens


@given(length=lengths, batch=st.integers(1, 20), seed=st.integers(0, 99))
def test_windows_of_like_length_share_a_batch(length: np.ndarray, batch: int, seed: int) -> None:
    groups = group(length, np.random.default_rng(seed), batch)
    assert sorted(np.concatenate([np.empty(0, np.int64), *groups])) == list(range(len(length)))
    assert sorted(map(len, groups), reverse=True)[1:] in (
        [],
        [batch] * (len(groups) - 2) + [len(length) % batch or batch],
    )
    # Sorted by length, one batch ends where the next begins: no other grouping has less padding.
    ordered = sorted(groups, key=lambda rows: (length[rows].min(), length[rows].max(), -len(rows)))
    for rows, following in pairwise(ordered):
        assert length[rows].max() <= length[following].min()


def test_batches_come_in_another_order_each_time_and_the_same_for_a_seed() -> None:
    length = np.full(40, 8)
    first, again, other = (group(length, np.random.default_rng(seed), 8) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    assert np.concatenate(first).tolist() != list(range(40))
    together = {frozenset(rows.tolist()) for rows in first}
    assert not together & {frozenset(rows.tolist()) for rows in other}  # nor do the same windows meet again


def test_a_window_longer_than_the_budget_is_an_error() -> None:
    with pytest.raises(DataError, match=r"data\.tokens is 64, less than a window of 100 readings"):
        group(np.array([10, 100]), np.random.default_rng(0), 8, 64)
