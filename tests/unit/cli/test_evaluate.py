"""`stream-gru evaluate` on tiny data sets."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stream_gru.cli import app
from stream_gru.errors import DataError
from stream_gru.evaluation import output
from stream_gru.evaluation.suite import Suite
from stream_gru.evaluation.tables import FigureTable
from tests.support import evaluation_data
from tests.support.command_line import stream_gru


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation_data.write(tmp_path_factory.mktemp("data"))


def evaluate(*arguments: object) -> Any:
    return stream_gru("evaluate", *arguments)


def rows(report: dict[str, Any], title: str) -> dict[str, dict[str, Any]]:
    table = next(table for table in report["tables"] if table["title"].startswith(title))
    return {next(iter(row.values())): row for row in table["rows"]}


@pytest.mark.slow
@pytest.mark.parametrize("suite", [s for s in Suite if s is not Suite.ett])  # the longest; tested by its functions
def test_every_suite_prints_one_object_beside_baselines(data: Path, tmp_path: Path, suite: Suite) -> None:
    quick = ["--bundle", "light", *(["--limit", 100] * (suite == "one-step"))]
    result = evaluate(suite.value, "--data", data, "--json", "--out", tmp_path, *quick)
    report = json.loads(result.stdout)
    assert report["suite"] == suite
    assert report["readings"] > 0
    names = {next(iter(row.values())) for row in report["tables"][0]["rows"]}
    assert {"stream-gru", "last value"} <= names or {"stream-gru", "mean |z|"} <= {n.split(":")[0] for n in names}
    assert any("published" in name or "TSB-AD" in name for name in names) or suite == "one-step"
    assert json.loads((tmp_path / f"{suite.value}.json").read_text()) == report
    tables = sorted(tmp_path.glob("*.csv"))
    assert len(tables) == len(report["tables"])
    assert all(len(list(csv.reader(table.read_text().splitlines()))) > 1 for table in tables)


@pytest.mark.slow
def test_an_obvious_anomaly_is_found_in_nab(data: Path) -> None:
    report = json.loads(evaluate("nab", "--data", data, "--json", "--threshold", 2).stdout)
    found = rows(report, "NAB, 2 files")
    assert found["stream-gru"]["standard"] > 60
    assert found["stream-gru"]["windows found"] == "1/1"
    assert found["ARTime, published, 58 files"]["standard"] == 74.9
    assert "ARTime, its scores, these files" not in found
    fixed = rows(report, "NAB, thresholds that were not")
    assert {"stream-gru: alert_score >= 1, all files", "stream-gru: alert_score >= 2, all files"} <= fixed.keys()


@pytest.mark.slow
def test_published_scores_of_rows_are_scored_on_the_same_files(data: Path) -> None:
    perfect, n = np.zeros(evaluation_data.ROWS), evaluation_data.ROWS
    perfect[295] = 1
    file = data / "NAB" / "published_scores.npz"
    scores: Any = {
        "ARTime/realOne/a.csv": perfect,
        "ARTime/realOne/b.csv": np.zeros(n),
        "numenta/realOne/a.csv": perfect,
    }
    np.savez(file, **scores)
    try:
        found = rows(json.loads(evaluate("nab", "--data", data, "--json").stdout), "NAB, 2 files")
    finally:
        file.unlink()
    assert found["ARTime, its scores, these files"]["standard"] == pytest.approx(100)
    assert "Numenta HTM, its scores, these files" not in found  # not of all files


@pytest.mark.slow
def test_tables_and_pictures(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = evaluate("nab", "--data", data, "--out", tmp_path, "--plot", "--bundle", "light")
    assert "stream-gru" in result.stdout
    assert "NAB by file" not in result.stdout
    assert [p.read_bytes()[:4] for p in tmp_path.glob("*.png")] == [b"\x89PNG"] * 2  # the labelled file, and the other


def test_the_features_that_are_drawn_are_those_that_stand_out() -> None:
    value = np.random.default_rng(0).normal(size=(300, 6))
    value[:, 0] = 7
    value[100, [1, 3, 5]] = 50
    assert output._telling(value) == [1, 3, 5]
    assert output._telling(value[:, :1]) == [0]


def test_what_is_wrong_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold SKAB: SKAB/data"):
        CliRunner().invoke(app, ["evaluate", "skab", "--data", str(tmp_path)], catch_exceptions=False)
    with pytest.raises(DataError, match="no threshold applies"):
        evaluate("m4", "--data", data, "--threshold", 1)
    result = CliRunner().invoke(app, ["evaluate", "nab", "--data", str(data), "--plot"])
    assert result.exit_code == 2
    assert "--out" in result.output


def test_scikit_learn_is_asked_for_at_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(DataError, match=r"scikit-learn.*training"):
        evaluate("smd", "--data", data)
    evaluate("nab", "--data", data, "--limit", 20)  # goes without


def test_a_table_has_null_for_what_is_no_number() -> None:
    table = FigureTable("t", ("a", "b", "c"), [["x", float("nan"), float("inf")]])
    assert table.plain()["rows"] == [{"a": "x", "b": None, "c": None}]
