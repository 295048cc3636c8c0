"""Covariates from the payload or a history file to the model, and what happens where they do not fit it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from stream_gru import codecs
from stream_gru.cli import app
from stream_gru.columns import Readings
from stream_gru.engine.engine import Engine
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import DataError, SettingsError
from stream_gru.models import bundle
from stream_gru.models.context import Context
from stream_gru.models.network import Network
from stream_gru.settings import Input, ModelSettings, Settings
from stream_gru.worker.worker import Worker
from tests.support.command_line import stream_gru

N = 40
TIMES = 1_700_000_000_000 + np.arange(N) * 60_000


@pytest.fixture
def wanting(tmp_path: Path) -> Path:
    """The folder of a model with the covariates `load` and `sun`."""
    torch.manual_seed(0)
    context = Context(covariates=("load", "sun"), loc=(0.0, 0.0), scale=(1.0, 1.0))
    description = bundle.Description(name="wanting", network=Network(hidden=8), horizons=(2,), context=context)
    forecaster = bundle.build(description)
    with torch.no_grad():  # so that an input shows in the forecast
        for weight in forecaster.heads.parameters():
            weight.normal_(std=0.5)
    bundle.save(tmp_path / "wanting", description, forecaster)
    return tmp_path / "wanting"


def readings(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    extras = rng.normal(size=(N, 2))
    extras[::7, 0] = np.nan
    return rng.normal(10, 1, N), extras


def score(folder: Path, value: np.ndarray, extras: np.ndarray | None) -> np.ndarray:
    table = Engine(folder, capacity=1, device="cpu").score(["a"] * N, TIMES, value, extras)
    return table["yhat"].to_numpy()


def test_payload_and_engine_agree(wanting: Path) -> None:
    value, extras = readings()
    codec = codecs.load(Input(covariates=("load", "weather.sun")), (1, 2))
    payloads = codec.encode_readings([b"a"] * N, TIMES, np.c_[value, extras])
    decoded = codec.decode([b"a"] * N, [*payloads], TIMES)
    engine = Stepper(wanting, capacity=1, device="cpu")
    engine.arena.open(0)
    slots = engine.arena.admit(0, decoded.series)
    served = engine.step(Readings(slots, np.arange(N), decoded.timestamp, decoded.value))
    np.testing.assert_allclose(served.yhat[:, 0], score(wanting, value, extras), rtol=1e-6)
    assert served.y.shape == (N, 1)  # outputs know nothing of them
    made = codec.encode([b"a"] * N, TIMES, [str(i) for i in range(N)], "m", served)
    assert not any(b"load" in record or b"sun" in record for record in made)


def test_they_matter_and_unknown_ones_count_as_their_mean(wanting: Path) -> None:
    value, extras = readings()
    assert np.nanmax(np.abs(score(wanting, value, extras) - score(wanting, value, None))) > 1e-3
    np.testing.assert_array_equal(score(wanting, value, np.zeros((N, 2))), score(wanting, value, None))


def test_a_reading_whose_covariates_are_unknown_is_no_missing_reading(wanting: Path) -> None:
    value, _ = readings()
    table = Engine(wanting, capacity=1, device="cpu").score(["a"] * N, TIMES, value)
    assert table["level"].unique().to_list() == ["warmup"]


@pytest.mark.parametrize("fields", [(), ("load",), ("sun", "load"), ("load", "sun", "wind")])
def test_a_worker_starts_with_the_fields_of_its_model_alone(wanting: Path, fields: tuple[str, ...]) -> None:
    def start(covariates: tuple[str, ...]) -> Stepper:
        settings = Settings(input=Input(covariates=covariates), model=ModelSettings(bundle=wanting, device="cpu"))
        return Worker(settings)._engine()

    assert start(("load", "weather.sun")).covariates == ("load", "sun")
    with pytest.raises(SettingsError, match=r"input.covariates: the model's are load, sun, the settings name"):
        start(fields)


def test_a_backtest_reads_them_from_columns(wanting: Path, tmp_path: Path) -> None:
    value, extras = readings()
    file = tmp_path / "h.csv"
    columns = {"t": TIMES, "v": value, "load": extras[:, 0], "sun": extras[:, 1], "other": np.zeros(N)}
    pl.DataFrame(columns).with_columns(pl.col("load").fill_nan(None)).write_csv(file)
    options = ["backtest", str(file), "--time", "t", "--value", "v", "--format", "parquet", "--out", str(tmp_path)]
    model = ["--set", f"model.bundle={wanting}", "--set", "model.device=cpu"]

    def run(*more: str) -> np.ndarray:
        stream_gru(*options, *model, *more)
        return pl.read_parquet(tmp_path / "h.parquet")["yhat"].to_numpy()

    expected = score(wanting, value, extras)
    np.testing.assert_allclose(run(), expected, rtol=1e-6)  # by their names
    np.testing.assert_allclose(run("--covariate", "load,sun"), expected, rtol=1e-6)
    assert np.nanmax(np.abs(run("--covariate", "sun,other") - expected)) > 1e-3
    with pytest.raises(DataError, match="names 1 columns; the model has 2 covariates: load, sun"):
        run("--covariate", "sun")
    pl.read_csv(file).drop("load", "sun").write_csv(file)
    with pytest.raises(DataError, match="has no column load, sun"):
        run()


def test_columns_that_the_model_does_not_want(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("t,v,w\n1,2,3\n")
    options = ["backtest", str(tmp_path / "h.csv"), "--time", "t", "--value", "v", "--out", str(tmp_path)]
    with pytest.raises(DataError, match="names 1 columns; the model has 0 covariates"):
        CliRunner().invoke(app, [*options, "--covariate", "w"], catch_exceptions=False)
