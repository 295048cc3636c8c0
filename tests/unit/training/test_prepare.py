from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stream_gru.columns import Forecasts, Readings
from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle
from stream_gru.models.context import Context
from stream_gru.models.network import Network
from stream_gru.models.scaling import Scaling
from stream_gru.training import objective
from stream_gru.training.data import missing
from stream_gru.training.data.series import Series
from stream_gru.training.data.windows import Filled, Spans, Tape, Windows
from stream_gru.training.prepare import Prepared, prepare

N, T = 5, 62  # readings, fewer than those from which on the engine corrects quantiles
STANDARD = Scaling(kind="standard", loc=(20.0,), scale=(3.0,))
CONTEXT = Context(
    timezone="Europe/Berlin",
    hour=True,
    weekday=True,
    holidays="DE-BY",
    covariates=("load", "site"),
    loc=(0.5, 3.0),
    scale=(0.3, 2.0),
)


def describe(**more: object) -> bundle.Description:
    return bundle.Description.model_validate(
        {"name": "small", "network": Network(hidden=8), "horizons": (3, 6), **more}
    )


def recorded(gaps: bool, covariates: int) -> list[Series]:
    """Hours around Christmas and a change of clocks; a tenth missing, and every first value there."""
    rng = np.random.default_rng(3)
    series = []
    for i in range(N):
        value = 20 + np.cumsum(rng.normal(size=T))
        if gaps:
            value[1:][rng.random(T - 1) < 0.2] = np.nan
            value[-1] = 21.0
        extras = rng.normal(size=(T, covariates))
        extras[rng.random(extras.shape) < 0.1] = np.nan
        start = (1_703_300_000 if i % 2 else 1_711_800_000) * 1000
        series.append(Series(start + np.arange(T) * 3_600_000, value, 0, extras, f"s{i}"))
    return series


def serve(folder: Path, series: list[Series]) -> Forecasts:
    engine = Stepper(folder, capacity=len(series), device="cpu")
    engine.arena.open(0)
    slots = engine.arena.admit(0, [one.name.encode() for one in series])
    value = np.concatenate([np.c_[one.value, one.covariates] for one in series])
    timestamp = np.concatenate([one.timestamp for one in series])
    return engine.step(Readings(np.repeat(slots, T), np.arange(value.shape[0]), timestamp, value))


def whole(series: list[Filled]) -> Windows:
    tape = Tape(series)
    return tape.cut(Spans(np.arange(N), np.cumsum(tape.sizes) - tape.sizes, tape.sizes))


@pytest.mark.slow
@pytest.mark.parametrize("scaling", [Scaling(), STANDARD], ids=["online", "standard"])
@pytest.mark.parametrize("context", [Context(), CONTEXT], ids=["plain", "context"])
@pytest.mark.parametrize(("how", "gaps"), [("mask", False), ("mask", True), ("forward", True), ("forecast", True)])
@pytest.mark.parametrize("kind", ["light", "experts"])
def test_training_sees_what_serving_does(
    tmp_path: Path, scaling: Scaling, context: Context, how: missing.How, *, gaps: bool, kind: str
) -> None:
    torch.manual_seed(0)
    description = describe(features=kind, scaling=scaling, context=context, missing=missing.SERVED[how])
    forecaster = bundle.build(description)
    bundle.save(tmp_path, description, forecaster)
    series = recorded(gaps, len(context.covariates))
    served = serve(tmp_path, series)
    windows = whole(missing.fill(series, how, tmp_path))
    assert (windows.length.min() < T) == (gaps and how == "mask")
    assert np.all(windows.known) == (not gaps)
    with torch.no_grad():
        trained = (
            objective.run(forecaster, prepare(windows, description))[0].mean(0)[:, forecaster.band].numpy()
        )  # (1 + K, 3, T, N)
    for i, one in enumerate(series):
        rows = np.flatnonzero(np.isfinite(one.value)) if how == "mask" else np.arange(T)
        length = windows.length[i]
        assert len(rows) == length
        value = windows.value[i, :length]
        ahead = served.ahead[i * T + rows, :, :, 0].transpose(1, 2, 0) - value
        np.testing.assert_allclose(ahead[:, :, 2:], trained[:, :, 2:length, i], atol=3e-4, rtol=3e-4)
        if how == "forecast":
            np.testing.assert_allclose(served.yhat[i * T + rows, 0][~windows.known[i]], value[~windows.known[i]])


def test_targets_lie_ahead_within_the_window_and_are_readings() -> None:
    windows = Windows(
        np.arange(7)[None] * 1000,
        np.array([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0]]),
        np.array([6]),
        np.array([[1, 1, 1, 1, 0, 1, 0]], np.bool_),
        np.zeros(1, np.int64),
        np.empty((1, 7, 0)),
    )
    nan = np.nan
    target = prepare(windows, describe(horizons=(2,))).target.numpy()[:, :, 0]
    np.testing.assert_array_equal(target[0], [nan, nan, 4, nan, 16, nan, nan])
    np.testing.assert_array_equal(target[1], [nan, nan, nan, 24, nan, nan, nan])


def test_portions_of_time_know_what_is_left_of_each_sequence() -> None:
    series = [one.part(0, length) for one, length in zip(recorded(False, 0), (62, 10, 40, 32, 62), strict=True)]
    prepared = prepare(whole(missing.fill(series, "mask")), describe())
    assert prepared.padded
    chunks = list(prepared.split(32, -2))
    assert [chunk.length.flatten().tolist() for chunk in chunks] == [
        [32, 10, 32, 32, 32],
        [30, 0, 8, 0, 30],
    ]
    first, second = prepared.split(3, -1)
    assert (first.length.flatten().tolist(), second.length.flatten().tolist()) == ([62, 10, 40], [32, 62])
    assert [part.x.shape[1:] for part in (first, second)] == [(62, 3), (62, 2)]
    assert not Prepared(*(part[..., :1] for part in prepared)).padded


def test_padding_and_portions_change_no_forecast() -> None:
    """What a fit learns from does not depend on what lies beside it in a batch, or where chunks are cut."""
    torch.manual_seed(0)
    forecaster = bundle.build(describe()).eval()
    series = [one.part(0, length) for one, length in zip(recorded(False, 0), (62, 10, 40, 32, 55), strict=True)]
    prepared = prepare(whole(missing.fill(series, "mask")), describe())
    state, parts = None, []
    with torch.no_grad():
        for chunk in prepared.split(32, -2):
            out, state = objective.run(forecaster, chunk, state)
            parts.append(out)
        together = torch.cat(parts, -2)
        for i, one in enumerate(series):
            filled = missing.fill([one], "mask")
            tape = Tape(filled)
            alone = prepare(tape.cut(tape.sliding(len(one), 1)), describe())
            expected, last = objective.run(forecaster, alone)
            torch.testing.assert_close(together[..., : len(one), i], expected[..., 0], atol=1e-5, rtol=1e-5)
            assert state is not None
            torch.testing.assert_close(state[i], last[0], atol=1e-5, rtol=1e-5)
