"""Cases through the engine: nothing of what follows, no labels, and no neighbour changes what it says."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from stream_gru.columns import Forecasts
from stream_gru.engine.stepper import Stepper
from stream_gru.evaluation import streaming
from stream_gru.evaluation.cases import SuiteCase
from stream_gru.evaluation.panel import panel
from tests.support.evaluation_data import daily

LIGHT = Path("light")  # what is tested is the same for every model


def make(i: int, n: int, features: int = 1) -> SuiteCase:
    rng = np.random.default_rng(i)
    value = np.stack([daily(i + 10 * f, n) for f in range(features)], axis=1)
    value[rng.random(value.shape) < 0.03] = np.nan
    value[n // 2] += 8
    return SuiteCase(f"case {i}", np.arange(n) * 3_600_000, value, ((n // 2, n // 2 + 3),), warm=n // 4)


def outputs(cases: list[SuiteCase]) -> list[Forecasts]:
    engine = Stepper(LIGHT, features=cases[0].value.shape[1], capacity=len(cases), device="cpu")
    places, parts = zip(*streaming.portions(engine, cases), strict=True)
    order = np.argsort(np.concatenate(places))
    columns = [np.concatenate([getattr(part, f.name) for part in parts])[order] for f in fields(Forecasts)]
    whole, first = Forecasts(*columns), 0
    found = []
    for case in cases:
        found.append(whole.take(slice(first, first + len(case))))
        first += len(case)
    return found


def head(case: SuiteCase, n: int) -> SuiteCase:
    return replace(case, timestamp=case.timestamp[:n], value=case.value[:n])


@pytest.mark.slow
@pytest.mark.parametrize("features", [1, 3])
def test_no_look_ahead(features: int) -> None:
    cases = [make(i, n, features) for i, n in enumerate((300, 420, 180, 411))]
    cuts = (120, 333, 180, 64)
    whole, prefix = outputs(cases), outputs([head(case, n) for case, n in zip(cases, cuts, strict=True)])
    for one, other, n in zip(whole, prefix, cuts, strict=True):
        for field in fields(Forecasts):
            expected, got = getattr(one, field.name)[:n], getattr(other, field.name)
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6, err_msg=field.name)


@pytest.mark.slow
def test_side_by_side_is_as_alone_and_labels_change_nothing() -> None:
    cases = [make(i, n) for i, n in enumerate((200, 300, 250))]
    together = streaming.judge(LIGHT, cases, lambda _: None)
    (alone,) = streaming.judge(LIGHT, [replace(cases[1], windows=(), warm=0)], lambda _: None)
    assert len(alone.score) == 300
    assert alone.score.max() > 0
    np.testing.assert_allclose(together[1].score, alone.score, rtol=1e-6)
    assert np.array_equal(together[1].flag, alone.flag)
    assert np.array_equal(together[1].alert, alone.alert_score > 1)


def test_cases_of_unlike_widths_come_back_in_their_order() -> None:
    cases = [make(0, 150, 2), make(1, 120, 1), make(2, 130, 2)]
    told: list[int] = []
    found = streaming.judge(LIGHT, cases, told.append)
    assert [len(one.score) for one in found] == [150, 120, 130]
    assert sum(told) == 2 * 150 + 120 + 2 * 130
    (alone,) = streaming.judge(LIGHT, [cases[2]], lambda _: None)
    np.testing.assert_allclose(found[2].score, alone.score, rtol=1e-6)


def test_predictions_are_those_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [make(i, n) for i, n in enumerate((90, 140))]
    expected = outputs(cases)
    monkeypatch.setattr(streaming, "_PORTION_VALUES", 37)
    found = streaming.predict(LIGHT, cases, lambda _: None)
    assert found.steps == Stepper(LIGHT, capacity=1, device="cpu").steps
    first = 0
    for one, case in zip(expected, cases, strict=True):
        data = panel([case])
        part = slice(first, first + len(one))
        first += len(one)
        columns = {0.05: one.lower, 0.5: one.yhat, 0.95: one.upper}
        for level, column in columns.items():
            got = found.quantiles[part, found.levels.index(level)]
            np.testing.assert_allclose(got, column[:, 0] - data.last, atol=1e-4)
        np.testing.assert_allclose(found.medians[part], one.ahead[:, :, 0, 0] - data.known()[:, None], atol=1e-4)
