from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stream_gru.engine.engine import Engine
from stream_gru.errors import StreamGruError
from tests.support.command_line import stream_gru

COLUMNS = [
    *("series", "timestamp", "y", "yhat", "yhat_lower", "yhat_upper", "anomaly_score", "anomaly_grade"),
    *("is_anomaly", "alert", "alert_score", "level", "forecast", "model", "id"),
    *("yhat_spread", "imputed"),
]


def write(file: Path, n: int = 300, seed: int = 0, spike: int | None = 250) -> np.ndarray:
    y = np.random.default_rng(seed).normal(20, 1, n)
    if spike and spike < n:
        y[spike] = 90
    stamps = [
        str(t).replace("T", " ") for t in np.datetime64("2014-04-01 00:00:00") + np.arange(n) * np.timedelta64(300, "s")
    ]
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(["timestamp,value", *(f"{t},{v!r}" for t, v in zip(stamps, y.tolist(), strict=True))]))
    return y


def backtest(*arguments: object) -> str:
    return stream_gru("backtest", *arguments).output


@pytest.mark.slow
def test_one_table_a_file_with_the_output_record(tmp_path: Path) -> None:
    y = write(tmp_path / "one.csv")
    write(tmp_path / "two.csv", 100, seed=1, spike=None)
    out = tmp_path / "out"
    backtest(
        tmp_path / "one.csv", tmp_path / "two.csv", "--time", "timestamp", "--value", "value", "--out", out, "--plot"
    )
    table = pl.read_csv(out / "one.csv")
    assert table.columns == COLUMNS
    np.testing.assert_array_equal(table["y"], y)
    assert table["id"].to_list() == [f"one-{row + 1}" for row in range(300)]
    assert table["series"].unique().to_list() == ["one"]
    assert table["timestamp"][1] - table["timestamp"][0] == 300_000
    assert table["level"].to_list()[:64] == ["warmup"] * 64
    assert table["is_anomaly"][250]
    assert table["alert"].sum() == table.filter("alert")["alert_score"].len() >= 1
    assert [step["step"] for step in json.loads(table["forecast"][0])] == [1, 12, 36]
    assert len(pl.read_csv(out / "two.csv")) == 100
    for name in ("one", "two"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_gaps_are_filled_in_where_the_settings_say_so(tmp_path: Path) -> None:
    write(tmp_path / "whole.csv", 100, spike=None)
    lines = (tmp_path / "whole.csv").read_text().splitlines()
    (tmp_path / "gappy.csv").write_text("\n".join(lines[:81] + lines[84:]))
    options = ["--time", "timestamp", "--value", "value", "--format", "parquet"]
    for name, more in {"carry": [], "impute": ["--set", "gaps.policy=impute"]}.items():
        backtest(tmp_path / "gappy.csv", *options, "--out", tmp_path / name, *more)
        imputed = pl.read_parquet(tmp_path / name / "gappy.parquet")["imputed"]
        assert imputed.to_list() == [0] * 80 + [3 if name == "impute" else 0] + [0] * 16


@pytest.mark.slow
def test_files_side_by_side_are_as_files_alone(tmp_path: Path) -> None:
    names = [f"f{i}.csv" for i in range(5)]
    for i, name in enumerate(names):
        write(tmp_path / name, 80 + 30 * i, seed=i)
    options = ["--time", "timestamp", "--value", "value", "--format", "parquet", "--out"]
    backtest(*(tmp_path / name for name in names), *options, tmp_path / "all")
    backtest(tmp_path / names[3], *options, tmp_path / "alone")
    together, alone = (pl.read_parquet(tmp_path / folder / "f3.parquet") for folder in ("all", "alone"))
    assert together.schema == alone.schema
    np.testing.assert_allclose(together["yhat"].to_numpy(), alone["yhat"].to_numpy(), rtol=1e-6)
    assert together["level"].to_list() == alone["level"].to_list()


def test_as_the_engine_says_row_by_row(tmp_path: Path) -> None:
    y = write(tmp_path / "one.csv", 90)
    backtest(tmp_path / "one.csv", "--time", "timestamp", "--value", "value", "--out", tmp_path, "--format", "parquet")
    engine = Engine(capacity=1, device="cpu")
    table = pl.read_parquet(tmp_path / "one.parquet")
    rows = [engine.score(["one"], [t], [v]) for t, v in zip(table["timestamp"].to_list(), y.tolist(), strict=True)]
    np.testing.assert_allclose(table["yhat"].to_numpy(), pl.concat(rows)["yhat"].to_numpy(), rtol=1e-6)


def test_keys_features_missing_cells_and_order(tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    file.write_text(
        "ts,unit,p,q\n1700000000,a,1,2\n1700000000,b,1,\n1699999000,a,3,4\n1700000060,a,,\n1700000060,b,2,1\n"
    )
    backtest(file, "--time", "ts", "--value", "p,q", "--key", "unit", "--out", tmp_path / "o", "--format", "parquet")
    table = pl.read_parquet(tmp_path / "o" / "wide.parquet")
    assert table["series"].to_list() == ["a", "b", "a", "a", "b"]
    assert table["level"].to_list() == ["warmup", "warmup", "late", "missing", "warmup"]
    assert table["y"].to_list()[1] == {"p": 1.0, "q": None}
    assert table["yhat"].to_list()[4] == {"p": pytest.approx(1.0, abs=1e-6), "q": None}
    backtest(file, "--time", "ts", "--value", "p,q", "--key", "unit", "--out", tmp_path / "o")
    assert json.loads(pl.read_csv(tmp_path / "o" / "wide.csv")["y"][0]) == {"p": 1.0, "q": 2.0}


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder in ("left", "right"):
        write(tmp_path / folder / "x.csv", 10, spike=None)
    files = [tmp_path / folder / "x.csv" for folder in ("left", "right")]
    backtest(*files, files[0], "--time", "timestamp", "--value", "value", "--out", tmp_path / "o")
    assert sorted(file.name for file in (tmp_path / "o").iterdir()) == ["left-x-1.csv", "left-x-2.csv", "right-x.csv"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("2014-04-01,1\nyesterday,2", "t is no ISO 8601 time in row 2"),
        ("2014-04-01,1\n2014-04-02,abc", "v is no number in row 2"),
        ("2014-04-01,1\n2014-04-02,inf", "v is no number in row 2"),
        ("2014-04-01,1\n2014-04-02,2e30", "row 2 holds a value beyond 1e"),
        ("2014-04-01,1\n,2", "t is empty in row 2"),
    ],
)
def test_what_the_stream_would_refuse_is_refused_with_its_row(tmp_path: Path, rows: str, message: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(f"t,v\n{rows}\n")
    with pytest.raises(StreamGruError, match=message):
        backtest(file, "--time", "t", "--value", "v", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_an_empty_file_gives_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("t,v\n")
    backtest(tmp_path / "none.csv", "--time", "t", "--value", "v", "--out", tmp_path / "o", "--plot")
    assert len(pl.read_csv(tmp_path / "o" / "none.csv")) == 0
