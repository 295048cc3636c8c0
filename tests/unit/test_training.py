from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stream_gru.batch import Readings
from stream_gru.cli import app
from stream_gru.engine import Engine
from stream_gru.errors import DataError
from stream_gru.models import bundle
from stream_gru.models.forecaster import Forecaster
from stream_gru.training import data, fit, synthetic

CPU = torch.device("cpu")


def small() -> tuple[bundle.Description, Forecaster]:
    torch.manual_seed(0)
    description = bundle.Description(name="small", hidden=8, horizons=(3, 6))
    return description, bundle.build(description)


def test_made_up_series_are_whole_and_repeatable() -> None:
    time, value = synthetic.generate(200, 150, np.random.default_rng(3))
    assert time.shape == value.shape == (200, 150)
    assert np.isfinite(value).all()
    assert np.abs(value).max() < 1e15
    assert (np.diff(time, axis=1) > 0).all()
    assert (np.ptp(value, axis=1) > 0).mean() > 0.95
    again = synthetic.generate(200, 150, np.random.default_rng(3))
    assert np.array_equal(value, again[1])
    assert not np.array_equal(value, synthetic.generate(200, 150, np.random.default_rng(4))[1])




def test_a_fit_learns_and_can_be_repeated() -> None:
    losses, weights = [], []
    for _ in range(2):
        _, forecaster = small()
        source = data.Synthetic()
        plan = fit.Plan(steps=30, batch=8, length=128, chunk=64, warm_up=3, learning_rate=1e-2)
        test = source.draw(32, 128, np.random.default_rng(9))
        prepared = fit.prepare(test, forecaster.steps, CPU)
        before = fit.loss(fit.run(forecaster, prepared)[0], prepared).item()
        reports: list[float] = []

        def tell(now: fit.Report, into: list[float] = reports) -> None:
            into.append(now.progress)

        fit.fit(forecaster, source, plan, tell)
        losses.append((before, fit.loss(fit.run(forecaster, prepared)[0], prepared).item()))
        weights.append([weight.detach().clone() for weight in forecaster.parameters()])
        assert reports == sorted(reports)
        assert (len(reports), reports[-1]) == (30, 1.0)
    assert losses[0][1] < 0.9 * losses[0][0]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))



def write_history(file: Path, n: int = 400) -> None:
    rows = [
        f"{1_700_000_000 + 60 * i},{('a', 'b')[i % 2]},{np.sin(i / 9):.4f},{'' if i % 50 == 3 else i}" for i in range(n)
    ]
    file.write_text("\n".join(["time,unit,x,y", *rows]))



def test_the_command_fits_history_and_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "h.csv"
    write_history(file)
    run = CliRunner().invoke
    out = tmp_path / "mine"
    options = ["train", str(file), "--time", "time", "--value", "x", "--key", "unit", "--out", str(out), "--steps", "2"]
    result = run(app, options)
    assert result.exit_code == 0, result.output
    made = bundle.load(out)
    assert made.name.startswith("mine@")
    assert made.description.training["source"] == "history"
    assert Engine(out, capacity=1, device="cpu").steps == (1, 12, 36)
    tiny = ["train", "--out", str(out), "--steps", "1", "--hidden", "4", "--horizons", "2", "--scratch"]
    assert run(app, tiny).exit_code == 0
    assert bundle.load(out).horizons == (2,)
    for wrong, message in (
        (["train", str(file), "--out", str(out)], "--time and --value"),
        (["train", str(file), "--time", "when", "--value", "x", "--out", str(out)], "has no column when"),
        (["train", "--out", str(out), "--horizons", "9,3"], "ascending"),
    ):
        result = run(app, wrong)
        assert isinstance(result.exception, Exception)
        assert message in str(result.exception)
