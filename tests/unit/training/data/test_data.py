from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stream_gru.cli import learning
from stream_gru.errors import BundleError, DataError
from stream_gru.training import data, recipe
from stream_gru.training.data import Series, SeriesCollection, Windows
from stream_gru.training.recipe import Recipe

MINUTE = 60_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def asked(**settings: Any) -> Recipe:
    return recipe.load(None, {name.replace("__", "."): value for name, value in settings.items()})


def line(size: int, base: float = 0.0, feature: int = 0, gaps: int = 0) -> Series:
    """Counts up from `base`; every `gaps`-th value is missing."""
    value = base + np.arange(float(size))
    if gaps:
        value[gaps::gaps] = np.nan
    return Series(np.arange(size) * MINUTE, value, feature, name=f"line{base:g}")


def batches(source: data.WindowSource, count: int, seed: int = 0) -> list[Windows]:
    return list(islice(source.batches(rng(seed)), count))


# -- history


def test_history_is_held_back_by_time() -> None:
    history = SeriesCollection([line(1000), line(120, 5000)])
    first, last = history.split(0.2)
    assert [len(one) for one in first.series] == [800, 96]
    assert [len(one) for one in last.series] == [200, 24]
    for early, late in zip(first.series, last.series, strict=True):
        assert early.timestamp[-1] < late.timestamp[0]
        assert early.value[-1] + 1 == late.value[0]
    middle = history.between(0.25, 0.5)
    assert [one.value[[0, -1]].tolist() for one in middle.series] == [[250, 499], [5030, 5059]]
    assert len(history) == len(first) + len(last) == 1120
    with pytest.raises(DataError, match="no series of at least 100 readings"):
        SeriesCollection([])
    with pytest.raises(DataError, match="no series"):
        history.between(0.3, 0.3)


def test_the_recent_past_is_counted_in_values() -> None:
    recent = SeriesCollection([line(1000, gaps=10), line(50)]).recent(90)
    assert [np.isfinite(one.value).sum() for one in recent.series] == [90, 50]
    assert recent.series[0].value[-1] == 999
    assert [np.isnan(one.value).sum() for one in recent.series] == [9, 0]


def write_history(file: Path, n: int = 400) -> None:
    """Two units by turns; x counts the rows, y is empty now and then, sun is a covariate."""
    rows = [f"{1_700_000_000 + 60 * i},{'ab'[i % 2]},{i},{'' if i % 50 == 3 else -i},{i % 7}" for i in range(n)]
    order = rng().permutation(n)
    file.write_text("\n".join(["time,unit,x,y,sun", *(rows[i] for i in order)]))


def test_series_are_read_from_files(tmp_path: Path) -> None:
    write_history(tmp_path / "h.csv")
    pl.read_csv(tmp_path / "h.csv").write_parquet(tmp_path / "i.parquet")
    history = data.read([tmp_path / "h.csv", tmp_path / "i.parquet"], "time", ["x", "y"], "unit", ["sun"])
    assert history.covariates == ("sun",)
    names = [one.name for one in history.series]
    assert names == [f"{file}/{unit}/{column}" for file in "hi" for unit in "ab" for column in (0, 1)]
    for one in history.series:
        assert (np.diff(one.timestamp) == 120_000).all()
        row = (one.timestamp - 1_700_000_000_000) // MINUTE
        assert one.feature == int(one.name[-1])
        assert np.isnan(one.value).sum() == (8 if "b/1" in one.name else 0)
        real = np.isfinite(one.value)
        np.testing.assert_array_equal(one.value[real], (row * (-1) ** one.feature)[real])
        np.testing.assert_array_equal(one.covariates[:, 0], row % 7)


def test_a_series_too_short_to_learn_from_is_left_out(tmp_path: Path) -> None:
    rows = [f"{i},{'long' if i % 3 else 'short'},{i}" for i in range(240)]
    (tmp_path / "h.csv").write_text("\n".join(["t,k,v", *rows]))
    assert [one.name for one in data.read([tmp_path / "h.csv"], "t", ["v"], "k").series] == ["h/long"]
    with pytest.raises(DataError, match="no column when"):
        data.read([tmp_path / "h.csv"], "when", ["v"], "k")
    (tmp_path / "h.csv").write_text("t,v\n1,2\n2,2e30")
    with pytest.raises(DataError, match="row 2 holds a value beyond 1e"):
        data.read([tmp_path / "h.csv"], "t", ["v"], None)


# -- batches


def test_sliding_windows_come_once_an_epoch_in_a_new_order() -> None:
    source = data.source(
        SeriesCollection([line(500), line(130, 5000)]), asked(data__length=100, data__stride=50, data__batch=4)
    )
    assert isinstance(source, data.Recorded)
    assert source.windows == 9 + 2
    epochs = batches(source, 6)
    assert [sum(len(w.value) for w in epoch) for epoch in (epochs[:3], epochs[3:])] == [11, 11]
    starts = [np.concatenate([w.value[:, 0] for w in epoch]).tolist() for epoch in (epochs[:3], epochs[3:])]
    assert sorted(starts[0]) == sorted(starts[1]) == [0, 50, 100, 150, 200, 250, 300, 350, 400, 5000, 5030]
    assert starts[0] != starts[1]
    again = batches(source, 3)
    assert np.concatenate([w.value[:, 0] for w in again]).tolist() == starts[0]


def test_windows_start_anywhere_without_a_stride() -> None:
    source = data.source(SeriesCollection([line(5000)]), asked(data__length=100, data__batch=16))
    seen = np.concatenate([w.value[:, 0] for w in batches(source, 30)])
    assert len(np.unique(seen)) > 400
    assert source.readings == 5000


def test_batches_of_a_token_budget() -> None:
    history = SeriesCollection([line(size, 1000.0 * size) for size in (30, 60, 90, 300, 310, 800)])
    source = data.source(history, asked(data__length=400, data__stride=200, data__tokens=1000))
    seen = batches(source, 40)
    assert all(w.value.size <= 1000 for w in seen)
    assert max(len(w.value) for w in seen) >= 3  # the short ones together
    padding = sum(w.value.size - w.length.sum() for w in seen) / sum(w.value.size for w in seen)
    assert padding < 0.15
    with pytest.raises(DataError, match=r"data.tokens is 350, less than a window of 400"):
        data.source(history, asked(data__length=400, data__tokens=350))
    data.source(history, asked(data__length=5000, data__tokens=900))  # no series is that long
    synthetic = data.source(None, asked(data__length=64, data__tokens=200))
    assert {w.value.shape for w in batches(synthetic, 9)} == {(3, 64)}
    with pytest.raises(DataError, match=r"data.tokens is 32, less than a window of 64"):
        next(data.source(None, asked(data__length=64, data__tokens=32)).batches(rng()))


def test_only_the_recent_past_is_learned_from() -> None:
    history = SeriesCollection([line(1000), line(120, 5000)])
    few = asked(data__length=50, data__recent=200, data__scaling="minmax")
    source = data.source(history, few)
    assert source.readings == 320
    seen = np.concatenate([w.value.ravel() for w in batches(source, 8)])
    assert seen[seen < 5000].min() >= 800
    assert data.describe(few, "x", SeriesCollection([line(1000)])).scaling.loc == ((800 + 999) / 2,)


@pytest.mark.slow
def test_what_is_missing_is_filled_as_the_recipe_says() -> None:
    history = SeriesCollection([line(400, gaps=4)])
    learned: dict[str, Windows] = {}
    for how in ("mask", "forward", "interpolate", "forecast"):
        few = asked(data__length=100, data__missing=how)
        source = data.source(history, few)
        learned[how] = next(source.batches(rng()))
        assert np.isfinite(learned[how].value).all()
        assert data.describe(few, "x", history).missing == {"interpolate": "forecast"}.get(how, how)
        assert source.readings == 301
    steps = {how: set(np.unique(np.diff(w.value[w.length == 100], axis=1))) for how, w in learned.items()}
    assert steps["mask"] == {1, 2}
    assert steps["forward"] == {0, 1, 2}
    assert steps["interpolate"] == {1}
    assert not steps["forecast"] & {0.0}
    assert (~learned["mask"].known).sum() == 0
    assert 0.2 < (~learned["interpolate"].known).mean() < 0.3


@pytest.mark.slow
def test_held_back_windows_are_as_in_service() -> None:
    """No line drawn to what comes after a gap, nothing augmented, none too old."""
    history = SeriesCollection([line(400, gaps=4)])
    few = asked(data__length=100, data__missing="interpolate", data__augment__noise=1.0, data__recent=50)
    windows = data.held_back(history, few, n=20)
    assert windows.value.shape == (20, 100)
    np.testing.assert_array_equal(windows.value[windows.known] % 1, 0)
    assert (windows.value[~windows.known] % 1 != 0).any()
    again, other = (data.held_back(history, few, n=20, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.value, windows.value)
    assert (other.value != windows.value).any()


def test_augmentation_reaches_what_is_learned_from() -> None:
    history = SeriesCollection([line(400)])
    noisy = next(data.source(history, asked(data__length=100, data__augment__noise=0.1)).batches(rng()))
    assert (noisy.value % 1 != 0).all()
    masked = next(data.source(None, asked(data__length=100, data__augment__mask=0.5)).batches(rng()))
    assert masked.length.max() < 75
    drawn = data.source(history, asked(data__length=100, data__augment__noise=0.1)).draw(5, 100, rng())
    assert (drawn.value % 1 == 0).all()


# -- covariates and scale


def covered(size: int = 300) -> SeriesCollection:
    value = np.arange(float(size))
    return SeriesCollection(
        [Series(np.arange(size) * MINUTE, value, 0, np.c_[value * 2, np.ones(size)])], ("sun", "site")
    )


def test_covariates_stay_with_their_readings() -> None:
    few = asked(data__length=50, context__covariates=["sun", "site"])
    windows = next(data.source(covered(), few).batches(rng()))
    np.testing.assert_array_equal(windows.covariates[..., 0], windows.value * 2)
    description = data.describe(few, "x", covered())
    assert description.context.loc == (299, 1)
    assert description.context.scale[1] == 1
    unknown = next(data.source(None, few).batches(rng()))
    assert unknown.covariates.shape == (*unknown.value.shape, 2)
    assert np.isnan(unknown.covariates).all()


@pytest.mark.parametrize("names", [(), ("sun",), ("site", "sun")])
def test_covariates_that_the_recipe_does_not_mean(names: tuple[str, ...]) -> None:
    few = asked(context__covariates=list(names))
    for use in (data.source, data.held_back, lambda h, r: data.describe(r, "x", h)):
        with pytest.raises(DataError, match=r"these covariates: sun, site; the recipe's context.covariates: "):
            use(covered(), few)


def test_a_scale_for_each_feature() -> None:
    history = SeriesCollection([line(200), line(200, 1000, feature=2)])
    scaling = data.describe(asked(data__scaling="minmax"), "x", history).scaling
    assert scaling.loc == (99.5, 0, 1099.5)
    assert scaling.scale == (99.5, 1, 99.5)
    assert data.describe(asked(), "x", history).scaling.kind == "online"
    with pytest.raises(DataError, match="made-up series have all sizes"):
        data.describe(asked(data__scaling="robust"), "x", None)


# -- the options of the commands


def test_options_name_the_history(tmp_path: Path) -> None:
    write_history(file := tmp_path / "h.csv")
    assert learning.history(None, None, None, None, None, False, None) is None
    history = learning.history([file], "time", "x,y", "unit", "sun", False, None)
    assert history is not None
    assert (len(history.series), history.covariates) == (4, ("sun",))


@pytest.mark.parametrize(
    ("files", "time", "value", "topic", "message"),
    [
        (["h.csv"], None, "x", False, "--time and --value"),
        (["h.csv"], "time", None, False, "--time and --value"),
        (None, "time", None, False, "columns but no file"),
        (["h.csv"], None, None, True, "--topic reads the fields that the configuration names"),
        (None, None, "x", True, "--topic reads the fields that the configuration names"),
    ],
)
def test_options_that_do_not_go_together(
    files: list[str] | None, time: str | None, value: str | None, topic: bool, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        learning.history([Path(f) for f in files] if files else None, time, value, None, None, topic, None)


def test_options_name_the_recipe(tmp_path: Path) -> None:
    assert learning.recipe(None, None) == Recipe()
    assert learning.recipe("lstm", ["data.length=64"]).network.cells == ("lstm",)
    assert learning.recipe(None, ["data.length=64", "context.timezone=Europe/Berlin"]).data.length == 64
    assert learning.recipe(None, None, "sun,site").context.covariates == ("sun", "site")
    named = learning.recipe(None, ['context.covariates=["a"]'], "b.a")
    assert named.context.covariates == ("a",)  # the recipe's own names stay
    with pytest.raises(BundleError, match="no such setting"):
        learning.recipe(None, ["data.width=1"])


def test_batches_never_end() -> None:
    source: Iterator[Windows] = data.source(
        SeriesCollection([line(40)]), asked(data__length=16, data__stride=8)
    ).batches(rng())
    assert sum(1 for _ in islice(source, 50)) == 50
