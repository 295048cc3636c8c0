"""Gates counted, recorded, drawn and judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import generate_latest
from torch import Tensor

from stream_gru.engine import gates
from stream_gru.errors import BundleError
from stream_gru.history import gates as tool
from stream_gru.metrics import Metrics
from stream_gru.models import bundle
from stream_gru.models.network import VARIANTS, Network
from stream_gru.settings import Settings
from stream_gru.worker.worker import Worker
from tests.support.gating import Known, engine, known, plain, readings

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
