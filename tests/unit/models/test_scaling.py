from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from stream_gru.models import scaling
from stream_gru.models.scaling import Scaling
from stream_gru.training import data, recipe
from stream_gru.training.data.series import Series, SeriesCollection

NAN = np.nan
VALUES = np.array([1.0, NAN, 2.0, 3.0, 4.0, 90.0])


@pytest.mark.parametrize(
    ("kind", "loc", "scale"),
    [
        ("standard", 20.0, np.std([1, 2, 3, 4, 90])),
        ("minmax", 45.5, 44.5),
        ("robust", 3.0, 2.0),
    ],
)
def test_each_kind_without_what_is_missing(kind: scaling.Kind, loc: float, scale: float) -> None:
    fitted = scaling.fit(kind, [VALUES])
    assert fitted.kind == kind
    np.testing.assert_allclose([*fitted.loc, *fitted.scale], [loc, scale])
    assert fitted == Scaling.model_validate_json(fitted.model_dump_json())


def test_scikit_learn_agrees() -> None:
    from sklearn.preprocessing import (  # type: ignore[import-untyped]  # it ships no types
        MinMaxScaler,
        RobustScaler,
        StandardScaler,
    )

    values = np.random.default_rng(0).gamma(2, 5, 1000)
    column = values[:, None]
    standard, robust, minmax = (scaling.fit(kind, [values]) for kind in ("standard", "robust", "minmax"))
    for ours, theirs in ((standard, StandardScaler()), (robust, RobustScaler()), (minmax, MinMaxScaler((-1, 1)))):
        scaled = (values - ours.loc[0]) / ours.scale[0]
        np.testing.assert_allclose(scaled, theirs.fit_transform(column)[:, 0], atol=1e-9)


@pytest.mark.parametrize("kind", ["standard", "minmax", "robust"])
def test_what_never_varies_has_the_scale_one(kind: scaling.Kind) -> None:
    fitted = scaling.fit(kind, [np.full(10, 7.0), np.full(3, NAN), np.empty(0)])
    assert fitted.scale == (1, 1, 1)
    assert fitted.loc == (7, 0, 0)


def test_one_scale_for_all_features_or_one_each() -> None:
    feature = np.array([0, 1, 1, 0])
    assert Scaling().of(feature) is None
    one = Scaling(kind="standard", loc=(1.0,), scale=(2.0,)).of(feature)
    each = Scaling(kind="standard", loc=(1.0, 5.0), scale=(2.0, 4.0)).of(feature)
    assert one is not None
    assert each is not None
    assert [column.tolist() for column in one] == [[1, 1, 1, 1], [2, 2, 2, 2]]
    assert [column.tolist() for column in each] == [[1, 5, 5, 1], [2, 4, 4, 2]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "online", "loc": (1.0,), "scale": (1.0,)},
        {"kind": "standard"},
        {"kind": "standard", "loc": (1.0,), "scale": (0.0,)},
        {"kind": "standard", "loc": (1.0, 2.0), "scale": (1.0,)},
        {"kind": "quantile", "loc": (1.0,), "scale": (1.0,)},
    ],
)
def test_numbers_that_make_no_scale(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Scaling.model_validate(wrong)


@pytest.mark.parametrize("kind", ["standard", "minmax", "robust"])
def test_nothing_of_the_held_back_part_leaks_into_the_scale(kind: scaling.Kind) -> None:
    """Of the values, and of the covariates."""
    rng = np.random.default_rng(1)

    def history(later: float) -> SeriesCollection:
        series = []
        for feature in (0, 1):
            value, extras = rng.normal(5, 2, 500), rng.normal(size=(500, 1))
            value[400:] = later
            extras[400:] = later
            series.append(Series(np.arange(500) * 60_000, value, feature, extras))
        return SeriesCollection(series, ["load"])

    asked = recipe.load(None, {"data.scaling": kind, "context.covariates": ["load"]})
    made = []
    for later in (0.0, 1e9):
        rng = np.random.default_rng(1)
        first, _ = history(later).split(0.2)
        made.append(data.describe(asked, "x", first))
    assert made[0] == made[1]
    assert len(made[0].scaling.loc) == 2
    assert data.describe(asked, "x", history(1e9)) != made[0]  # all of it would have shown
