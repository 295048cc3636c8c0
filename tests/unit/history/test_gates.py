"""Gates recorded over a history, and the command that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner

from stream_gru.cli import app
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import BundleError, DataError
from stream_gru.history import gates as tool
from stream_gru.history.files import History
from tests.support.command_line import stream_gru
from tests.support.gating import MINUTE, engine, plain, readings


def test_each_reading_has_its_own_gates() -> None:
    """Series that take turns, of two features, against each of them alone."""
    rng = np.random.default_rng(2)
    order = rng.permutation(np.repeat(np.arange(3), 40))
    values = rng.normal(size=(120, 2))
    values[rng.random((120, 2)) < 0.1] = np.nan
    names = [b"series %d" % i for i in order]
    made = engine(2)
    forecasts, found = tool.trace(made, readings(made, names, values), lambda gate: gate)
    np.testing.assert_array_equal(forecasts.y, values)
    assert made.watch is None
    times = readings(engine(2), names, values).timestamp
    for i in range(3):
        rows = np.flatnonzero(order == i)
        alone = engine(2)
        batch = readings(alone, [names[row] for row in rows], values[rows])
        batch.timestamp = times[rows]
        _, expected = tool.trace(alone, batch, lambda gate: gate)
        for name in ("update", "reset"):
            assert found[name].shape == (120, 2, 64)
            np.testing.assert_allclose(found[name][rows], expected[name], atol=1e-5)
            np.testing.assert_array_equal(np.isnan(found[name][..., 0]), np.isnan(values))


def test_a_summary_says_mean_quartiles_and_saturated_units() -> None:
    gate = torch.tensor([[0.0, 0.04, 0.5, 0.6, 0.96]])
    assert tool.summary(gate)[0].tolist() == pytest.approx([0.42, 0.04, 0.5, 0.6, 0.4, 0.2])


def test_there_must_be_readings() -> None:
    nothing = History([], np.empty(0, np.int64), np.empty((0, 1)))
    with pytest.raises(DataError, match="no readings"):
        tool.run(Stepper(capacity=1, device="cpu"), nothing, Path(), "nothing")


def write(file: Path, n: int = 400, shift: float = 8.0) -> Path:
    """Two series that take turns; the level of the first one shifts at three quarters."""
    rng = np.random.default_rng(3)
    rows = []
    for i in range(n):
        value = rng.normal(20, 1) + shift * (i >= 0.75 * n and i % 2 == 0)
        rows.append(f"{1_700_000_000 + 300 * (i // 2)},{'ab'[i % 2]},{value:.4f}")
    file.write_text("\n".join(["time,unit,value", *rows]))
    return file


def command(*arguments: object) -> str:
    return stream_gru("gates", *arguments).stdout


def of(file: Path, *more: object) -> list[object]:
    return ["--file", file, "--time", "time", "--value", "value", "--key", "unit", "--out", file.parent / "out", *more]


@pytest.mark.slow
def test_a_file_gives_a_picture_and_a_table(tmp_path: Path) -> None:
    file = write(tmp_path / "line 3.csv")
    said = json.loads(command(*of(file, "--json")))
    assert (said["series"], said["readings"]) == (2, 400)
    assert said["picture"] == str(tmp_path / "out/line_3-gates.png")
    table = pl.read_csv(said["table"])
    assert len(table) == 400
    assert table["series"].to_list() == ["a", "b"] * 200
    assert table["y"].is_not_null().all()
    assert table["is_anomaly"].sum() == said["anomalies"] > 0
    for gate in ("update", "reset"):
        assert np.ptp(table[f"{gate}_mean"].to_numpy()) > 0.005
        assert said["gates"][gate]["mean"] == pytest.approx(table[f"{gate}_mean"].mean(), abs=1e-4)
        assert table.select((pl.col(f"{gate}_q25") <= pl.col(f"{gate}_q75")).all()).item()
    picture = imread(said["picture"])
    assert picture.shape[1] >= 1000
    assert picture[..., :3].std() > 0.02
    assert ((picture[..., 1] > 0.7) & (picture[..., 0] < picture[..., 1] - 0.05)).mean() > 0.02, (
        "the gates' green bands"
    )


@pytest.mark.slow
def test_a_table_of_several_features_has_a_row_for_each(tmp_path: Path) -> None:
    made = Stepper(features=("x", "y"), capacity=1, device="cpu")
    value = np.random.default_rng(4).normal(size=(50, 2))
    value[7, 1] = np.nan
    history = History(["s"] * 50, np.arange(50) * MINUTE, value)
    result = tool.run(made, history, tmp_path, "two", kind="parquet")
    table = pl.read_parquet(result.table)
    assert table["feature"].to_list() == ["x", "y"] * 50
    np.testing.assert_array_equal(table["y"].to_numpy(), value.ravel())
    assert table["update_mean"].is_null().to_list() == np.isnan(value.ravel()).tolist()


@pytest.mark.slow
def test_one_series_of_a_file_and_its_last_readings(tmp_path: Path) -> None:
    file = write(tmp_path / "line.csv")
    every = pl.read_csv(json.loads(command("b", *of(file, "--json")))["table"])
    last = json.loads(command("b", *of(file, "--json", "--last", 30, "--format", "parquet")))
    assert (last["series"], last["readings"]) == (1, 30)
    assert last["picture"].endswith("b-gates.png")
    shown = pl.read_parquet(last["table"])
    assert set(every["series"]) == {"b"}
    np.testing.assert_allclose(shown["update_mean"], every["update_mean"].tail(30), rtol=1e-4)
    assert shown["timestamp"].to_list() == every["timestamp"].tail(30).to_list()


def test_the_last_readings_are_of_each_series() -> None:
    assert tool._last(["a", "b", "a", "a", "b"], 2).tolist() == [1, 2, 3, 4]
    assert tool._last(["a", "b", "a"], 9).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_missing_values_have_no_gates(tmp_path: Path) -> None:
    value = np.array([[1.0], [2.0], [np.nan], [np.nan]])
    history = History(["s"] * 4, np.arange(4) * MINUTE, value)
    whole = tool.run(Stepper(capacity=1, device="cpu"), history, tmp_path, "gap")
    assert pl.read_csv(whole.table)["update_mean"].is_null().to_list() == [False, False, True, True]
    assert whole.gates["update"]["mean"] > 0
    end = tool.run(Stepper(capacity=1, device="cpu"), history, tmp_path, "gap", last=2)
    assert (end.readings, end.gates) == (2, {})


@pytest.mark.slow
def test_a_table_for_people(tmp_path: Path) -> None:
    said = command(*of(write(tmp_path / "line.csv")))
    assert "2 series, 400 readings" in said
    assert "update" in said
    assert "reset" in said


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "line.csv")
    with pytest.raises(DataError, match="no series 'c'"):
        command("c", *of(file))
    with pytest.raises(BundleError, match="no gates"):
        command(*of(file, "--set", f"model.bundle={plain(tmp_path / 'plain')}"))
    with pytest.raises(DataError, match="covariates are given; the model wants none"):
        command(*of(file, "--covariate", "value"))
    for arguments in ([], ["--file", file]):
        assert CliRunner().invoke(app, ["gates", *map(str, arguments)]).exit_code == 2
