"""Gates counted, recorded, drawn and judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from matplotlib.image import imread
from prometheus_client import generate_latest
from torch import Tensor
from typer.testing import CliRunner

from stream_gru.bench import gates as bench
from stream_gru.bench.deviation import Case, Event, baseline, compare, unusual
from stream_gru.cli import app
from stream_gru.columns import Readings
from stream_gru.engine import gates
from stream_gru.engine.engine import Engine
from stream_gru.errors import BundleError, DataError
from stream_gru.history import gates as tool
from stream_gru.history.files import History
from stream_gru.metrics import Metrics
from stream_gru.models import bundle
from stream_gru.models.block import Block
from stream_gru.models.network import VARIANTS, Network
from stream_gru.settings import Settings
from stream_gru.worker.worker import Worker

MINUTE = 60_000


class Known(Block):
    """Its gates are its inputs and its states."""

    input_size = state_size = output_size = 5

    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 5)

    def gates(self, x: Tensor, state: Tensor) -> dict[str, Tensor]:
        return {"in": x, "kept": state}


def known(n: int) -> tuple[Tensor, Tensor]:
    x, state = torch.rand(2, n, 5, generator=torch.Generator().manual_seed(0)).unbind()
    x[0, 0], x[0, 1] = 0.0, 1.0  # saturated
    return x, state


def plain(folder: Path) -> Path:
    """A bundle without gates."""
    description = bundle.Description(name="plain", network=Network(cells=("rnn",), hidden=8), horizons=(2,))
    bundle.save(folder, description, bundle.build(description))
    return folder


def engine(features: int = 1, **options: Any) -> Engine:
    made = Engine(options.pop("bundle", Path("light")), features=features, capacity=200, device="cpu", **options)
    made.arena.open(0)
    return made


def readings(made: Engine, names: list[bytes], value: npt.NDArray[np.float64]) -> Readings:
    n = len(names)
    slots = made.arena.admit(0, names)
    return Readings(slots, np.arange(n), 1_700_000_000_000 + MINUTE * np.arange(n), value.reshape(n, -1))


# -- counted


@pytest.mark.parametrize("n", [1, 7, 64, 65, 1000])
def test_counts_and_sums_are_numpys_of_evenly_spaced_readings(n: int) -> None:
    counted = gates.Histograms(Known(), torch.device("cpu"))
    (x, state), bodies = known(n), torch.arange(n)
    counted(Known(), bodies, x, state)
    counted(Known(), bodies, state, x)
    every = -(-n // 64)
    for distribution in counted.read().values():
        both = np.concatenate([x[::every].numpy(), state[::every].numpy()])
        assert len(both) <= 2 * 64
        expected, edges = np.histogram(both, gates.BINS, (0, 1))
        assert distribution.counts == expected.tolist()
        assert distribution.bounds == pytest.approx(edges[1:].tolist())
        assert distribution.sum == pytest.approx(float(both.sum(dtype=np.float64)))


def test_readings_that_fill_up_a_small_batch_are_not_counted() -> None:
    made = engine()
    counted = gates.Histograms(made.bundle.forecaster.network, made.device)
    made.watch = counted
    made.step(readings(made, [b"a", b"b", b"c"], np.array([1.0, 2.0, 3.0])))
    assert [sum(distribution.counts) for distribution in counted.read().values()] == [3 * 64, 3 * 64]
    batch = readings(made, [b"a", b"b"], np.array([np.nan, 3.0]))
    batch.offset[0] = 100  # of a missing value; the other one was seen before
    made.step(batch)
    assert sum(counted.read()["update"].counts) == 3 * 64


def test_what_is_counted_is_what_the_network_does() -> None:
    made = engine()
    counted = gates.Histograms(made.bundle.forecaster.network, made.device)
    rng = np.random.default_rng(0)
    names, values = [b"a", b"b"] * 40, rng.normal(size=80)
    _, found = tool.trace(made, readings(made, names, values), lambda gate: gate)
    again = engine()
    again.watch = counted
    again.step(readings(again, names, values))
    for name, distribution in counted.read().items():
        assert distribution.counts == np.histogram(found[name], gates.BINS, (0, 1))[0].tolist()
        assert distribution.sum == pytest.approx(float(found[name].sum(dtype=np.float64)), rel=1e-6)


def test_without_a_watch_no_gate_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine()
    calls: list[int] = []
    network, compute = made.bundle.forecaster.network, made.bundle.forecaster.network.gates

    def spy(x: Tensor, state: Tensor) -> dict[str, Tensor]:
        calls.append(len(x))
        return compute(x, state)

    monkeypatch.setattr(network, "gates", spy)
    batch = readings(made, [b"a", b"b", b"c"], np.arange(3.0))
    made.step(batch)
    assert calls == []
    made.watch = gates.Histograms(network, made.device)
    calls.clear()
    batch.offset += 10
    made.step(batch)
    assert calls == [3]


def test_watching_changes_nothing() -> None:
    names, values = [b"a", b"b", b"c"] * 30, np.random.default_rng(1).normal(size=90)
    alone, watched = engine(), engine()
    watched.watch = gates.Histograms(watched.bundle.forecaster.network, watched.device)
    one, other = (made.step(readings(made, names, values)) for made in (alone, watched))
    np.testing.assert_array_equal(one.ahead, other.ahead)
    np.testing.assert_array_equal(one.anomaly_score, other.anomaly_score)


def test_a_model_without_gates_says_so(tmp_path: Path) -> None:
    made = engine(bundle=plain(tmp_path))
    with pytest.raises(BundleError, match="no gates"):
        gates.Histograms(made.bundle.forecaster.network, made.device)
    with pytest.raises(BundleError, match="no gates"):
        tool.trace(made, readings(made, [b"a"], np.ones(1)))


def test_another_model_may_be_loaded_meanwhile(tmp_path: Path) -> None:
    made = engine()
    made.watch = counted = gates.Histograms(made.bundle.forecaster.network, made.device)

    def step() -> dict[str, int]:
        made.step(readings(made, [b"a"], np.ones(1)))
        return {name: sum(found.counts) for name, found in counted.read().items()}

    assert step() == {"update": 64, "reset": 64}
    made.reload(plain(tmp_path / "plain"))
    assert step() == {"update": 64, "reset": 64}
    description = bundle.Description(name="lstm", network=Network(cells=("lstm",), hidden=8), horizons=(2,))
    bundle.save(tmp_path / "lstm", description, bundle.build(description))
    made.reload(tmp_path / "lstm")
    assert step() == {"update": 64, "reset": 64, "input": 8, "forget": 8, "output": 8}


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "rnn"])
def test_every_variant_with_gates_can_be_looked_at(name: str, tmp_path: Path) -> None:
    network = VARIANTS[name].model_copy(update={"hidden": 8})
    description = bundle.Description(name=name, network=network, horizons=(2,))
    bundle.save(tmp_path, description, bundle.build(description))
    made = engine(bundle=tmp_path)
    counted = gates.Histograms(made.bundle.forecaster.network, made.device)
    batch = readings(made, [b"a", b"b"] * 20, np.random.default_rng(0).normal(size=40))
    _, found = tool.trace(made, batch, lambda gate: gate)
    expected = {"lstm": {"input", "forget", "output"}, "mixed": {"update", "reset", "input", "forget", "output"}}
    assert set(found) == set(counted.read()) == expected.get(name, {"update", "reset"})
    for values in found.values():
        assert values.shape[2] % 8 == 0
        assert ((values > 0) & (values < 1)).all()
        assert values.std() > 0


# -- on the metrics page


def test_the_page_shows_counts_up_to_each_bound_and_the_sum() -> None:
    metrics = Metrics()
    assert 'gate="' not in generate_latest(metrics.registry).decode()
    counted = gates.Histograms(Known(), torch.device("cpu"))
    x = torch.tensor([[0.01, 0.02, 0.5, 0.97, 1.0]])
    counted(Known(), torch.arange(1), x, 1 - x)
    metrics.gates.show(counted.read())
    lines = generate_latest(metrics.registry).decode().splitlines()
    name = "stream_gru_gate_activation"
    assert f'{name}_bucket{{gate="in",le="0.05"}} 2.0' in lines
    assert f'{name}_bucket{{gate="in",le="0.5"}} 2.0' in lines
    assert f'{name}_bucket{{gate="in",le="0.55"}} 3.0' in lines
    assert f'{name}_bucket{{gate="in",le="0.95"}} 3.0' in lines
    assert f'{name}_bucket{{gate="in",le="1.0"}} 5.0' in lines
    assert f'{name}_bucket{{gate="in",le="+Inf"}} 5.0' in lines
    assert f'{name}_count{{gate="in"}} 5.0' in lines
    sums = {
        line.split("{")[1].split("}")[0]: float(line.split()[-1]) for line in lines if line.startswith(f"{name}_sum")
    }
    assert sums == {'gate="in"': pytest.approx(2.5), 'gate="kept"': pytest.approx(2.5)}


@pytest.mark.parametrize("asked", [True, False])
def test_a_worker_counts_gates_where_the_settings_ask_for_it(asked: bool) -> None:
    settings = Settings.model_validate({"metrics": {"gates": asked}, "state": {"capacity": 20_000}})
    assert (Worker(settings)._engine().watch is not None) is asked


# -- recorded


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
        tool.run(Engine(capacity=1, device="cpu"), nothing, Path(), "nothing")


# -- the command


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
    result = CliRunner().invoke(app, ["gates", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def of(file: Path, *more: object) -> list[object]:
    return ["--file", file, "--time", "time", "--value", "value", "--key", "unit", "--out", file.parent / "out", *more]


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


def test_a_table_of_several_features_has_a_row_for_each(tmp_path: Path) -> None:
    made = Engine(features=("x", "y"), capacity=1, device="cpu")
    value = np.random.default_rng(4).normal(size=(50, 2))
    value[7, 1] = np.nan
    history = History(["s"] * 50, np.arange(50) * MINUTE, value)
    result = tool.run(made, history, tmp_path, "two", kind="parquet")
    table = pl.read_parquet(result.table)
    assert table["feature"].to_list() == ["x", "y"] * 50
    np.testing.assert_array_equal(table["y"].to_numpy(), value.ravel())
    assert table["update_mean"].is_null().to_list() == np.isnan(value.ravel()).tolist()


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


def test_missing_values_have_no_gates(tmp_path: Path) -> None:
    value = np.array([[1.0], [2.0], [np.nan], [np.nan]])
    history = History(["s"] * 4, np.arange(4) * MINUTE, value)
    whole = tool.run(Engine(capacity=1, device="cpu"), history, tmp_path, "gap")
    assert pl.read_csv(whole.table)["update_mean"].is_null().to_list() == [False, False, True, True]
    assert whole.gates["update"]["mean"] > 0
    end = tool.run(Engine(capacity=1, device="cpu"), history, tmp_path, "gap", last=2)
    assert (end.readings, end.gates) == (2, {})


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


# -- judged


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
