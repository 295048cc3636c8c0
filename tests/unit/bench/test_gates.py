"""Whether gates tell anomalies, judged on labelled series."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stream_gru.bench import gates as bench
from stream_gru.bench.deviation import Case, Event, baseline, compare, unusual
from stream_gru.cli import app
from stream_gru.errors import DataError


def test_a_baseline_is_of_what_came_before() -> None:
    values = np.random.default_rng(5).normal(size=(300, 2))
    mean, deviation = baseline(values)
    weights = 0.995 ** np.arange(200)[::-1]
    expected = (weights[:, None] * values[:200]).sum(0) / weights.sum()
    np.testing.assert_allclose(mean[200], expected)
    assert np.isnan(mean[0]).all()
    assert deviation[200] == pytest.approx(values[:200].std(0), rel=0.1)
    assert unusual(np.r_[np.zeros(50), 3.0], 0.5)[-1] == pytest.approx(6.0)


def cases(height: float) -> list[Case]:
    made = []
    for i in range(20):
        rng = np.random.default_rng(i)
        good, bad = rng.normal(size=(2, 1000))
        at = int(rng.integers(400, 900))
        good[at + 3] += height
        made.append(Case(str(i), {"good": good, "bad": bad}, [Event(at - 10, at + 30, at)], 100))
    return made


def test_a_signal_that_stands_out_is_told_from_one_that_does_not() -> None:
    found = compare(cases(9.0), "good")
    good, bad = found["signals"]["good"], found["signals"]["bad"]
    assert (found["events"], found["series"], found["left_out"]) == (20, 20, 0)
    assert good["auc"][0] > 0.99
    assert good["hits"] == 1
    assert good["delay"] == 3
    assert good["behind"] == 0
    assert bad["auc"][1] < 0.5 < bad["auc"][2]
    assert bad["difference"][2] < -0.2
    assert bad["hits"] < 0.5
    assert bad["auc"][0] < bad["both"][0] < good["auc"][0]


def test_nothing_is_found_in_nothing() -> None:
    assert compare([], "s") == {"events": 0, "left_out": 0, "series": 0, "signals": {}}


def test_where_nothing_happens_nothing_stands_out() -> None:
    good = compare(cases(0.0), "bad")["signals"]["good"]
    assert good["auc"][1] < 0.5 < good["auc"][2]


def test_a_window_without_others_to_compare_it_with_is_left_out() -> None:
    signal = np.random.default_rng(0).normal(size=120)
    found = compare([Case("a", {"s": signal}, [Event(30, 60, 40), Event(80, 90, 85)], 15)], "s")
    assert (found["events"], found["left_out"]) == (1, 1)


@pytest.mark.slow
def test_the_benchmark_reads_labels_and_knows_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    y, start = rng.normal(50, 1, 1500), np.datetime64("2024-01-01")
    y[1200:1230] = rng.normal(80, 5, 30)
    stamps = [str(start + np.timedelta64(5 * i, "m")).replace("T", " ") + ":00" for i in range(1500)]
    (tmp_path / "NAB/data/kind").mkdir(parents=True)
    (tmp_path / "NAB/labels").mkdir()
    lines = [f"{t[:19]},{v:.4f}" for t, v in zip(stamps, y, strict=True)]
    for name in ("one", "quiet"):
        (tmp_path / f"NAB/data/kind/{name}.csv").write_text("\n".join(["timestamp,value", *lines]))
    window = [f"{stamps[1150][:19]}.000000", f"{stamps[1280][:19]}.000000"]
    spans = {"kind/one.csv": [window], "kind/quiet.csv": [], "kind/absent.csv": [window]}
    labels = {"kind/one.csv": [stamps[1200][:19]], "kind/quiet.csv": [], "kind/absent.csv": [stamps[1200][:19]]}
    (tmp_path / "NAB/labels/combined_windows.json").write_text(json.dumps(spans))
    (tmp_path / "NAB/labels/combined_labels.json").write_text(json.dumps(labels))
    smaller = {
        "_SERIES": 6,
        "_READINGS": 800,
        "_START": 300,
        "_EARLIEST": 600,
        "_LATEST": 740,
        "_BATCH": 64,
        "_ROUNDS": 3,
    }
    for name, value in smaller.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "KINDS", {kind: bench.KINDS[kind] for kind in ("nothing", "deviation x 3")})

    arguments = ["bench", "gates", "--data", str(tmp_path), "--bundle", "light", "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    found = json.loads(result.stdout)
    assert (found["labelled"]["events"], found["labelled"]["series"]) == (1, 1)
    assert set(found["labelled"]["signals"]) == {
        *("update, mean", "update, units", "reset, mean", "reset, units"),
        *("|dx|", "anomaly score"),
    }
    assert found["labelled"]["signals"]["anomaly score"]["auc"][0] == 1
    assert found["labelled"]["signals"]["anomaly score"]["delay"] >= 0
    assert found["moves"]["update"]["inside"] > found["moves"]["update"]["outside"]
    assert found["changes"]["deviation x 3"]["signals"]["update, units"]["auc"][0] > 0.9
    assert all(rate["with"] > 0 for rate in found["cost"].values())

    with pytest.raises(DataError, match="does not hold NAB"):
        bench.run(tmp_path / "NAB/data", None, lambda _: None)
