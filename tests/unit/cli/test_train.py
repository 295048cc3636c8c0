"""`stream-gru train`."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from stream_gru.cli import app, progress
from stream_gru.engine.stepper import Stepper
from stream_gru.errors import StreamGruError
from stream_gru.models import bundle
from stream_gru.training import fit

QUICK = ["--steps", "2", "--set", "data.length=40", "--set", "data.batch=4", "--set", "network.hidden=5"]


@pytest.fixture
def history(tmp_path: Path) -> list[str]:
    rows = [
        f"{1_700_000_000 + 60 * i},{'ab'[i % 2]},{np.sin(i / 9):.4f},{'' if i % 50 == 3 else i}" for i in range(800)
    ]
    file = tmp_path / "h.csv"
    file.write_text("\n".join(["time,unit,x,y", *rows]))
    return [str(file), "--time", "time", "--value", "x,y", "--key", "unit"]


def train(*arguments: str | Path) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(bundle.load(folder).forecaster.state_dict())


@pytest.mark.slow
def test_made_up_series_without_files(tmp_path: Path) -> None:
    result = train("--out", tmp_path / "mine", *QUICK, "--set", "horizons=[2]", "--report")
    assert result.exit_code == 0, result.output
    assert "before: 1 ahead" in result.output
    assert "after:  1 ahead" in result.output
    made = bundle.load(tmp_path / "mine")
    assert result.output.splitlines()[-1] == f"{made.name} in {tmp_path / 'mine'}"
    assert made.name.startswith("mine@")
    assert made.horizons == (2,)
    assert made.description.network.hidden == 5
    training = made.description.training
    assert training | {"loss": 0, "held_back_loss": 0, "error_of_last_value": 0, "coverage": 0} == {
        "source": "synthetic",
        "start": None,
        "steps": 2,
        "readings": 2 * 4 * 40,
        "seed": 0,
        "learning_rate": 3e-3,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "clip": 1.0,
        "precision": "32",
        "batch": 4,
        "length": 40,
        "chunk": 256,
        "skipped": 0,
        "stopped": "steps",
        "loss": 0,
        "held_back_loss": 0,
        "error_of_last_value": 0,
        "coverage": 0,
    }
    assert sorted(file.name for file in (tmp_path / "mine" / "training").iterdir()) == [
        "checks.csv",
        "last.ckpt",
        "norms.csv",
    ]
    assert "<html" in (tmp_path / "mine" / "report.html").read_text()


def test_the_same_command_makes_the_same_bundle(tmp_path: Path) -> None:
    for folder in ("one", "two", "three"):
        seed = ["--seed", "1"] if folder == "three" else []
        assert train("--out", tmp_path / folder, "--name", "same", *QUICK, *seed).exit_code == 0
    one, two, three = (bundle.load(tmp_path / folder).digest for folder in ("one", "two", "three"))
    assert one == two != three


def test_history_goes_on_from_the_package_s_bundle(tmp_path: Path, history: list[str]) -> None:
    result = train(*history, "--out", tmp_path / "mine", "--steps", "1", "--set", "data.length=40")
    assert result.exit_code == 0, result.output
    made, package = bundle.load(tmp_path / "mine").description, bundle.load()
    assert (made.training["source"], made.training["start"]) == ("history", package.name)
    assert made.training["learning_rate"] == 5e-4
    assert (made.network, made.horizons) == (package.description.network, package.horizons)
    assert Stepper(tmp_path / "mine", capacity=1, device="cpu").steps == (1, *package.horizons)
    before = package.forecaster.state_dict()
    for name, tensor in weights(tmp_path / "mine").items():
        torch.testing.assert_close(tensor, before[name], atol=1e-3, rtol=0)


def test_another_network_starts_from_random_weights(tmp_path: Path, history: list[str]) -> None:
    result = train(*history, "--out", tmp_path / "mine", "--recipe", "lstm", *QUICK)
    assert result.exit_code == 0, result.output
    assert "starting from random weights" in result.output
    made = bundle.load(tmp_path / "mine").description
    assert (made.network.cells, made.training["start"], made.training["learning_rate"]) == (("lstm",), None, 3e-3)
    again = train(*history, "--out", tmp_path / "next", "--start", tmp_path / "mine", "--steps", "1")
    assert again.exit_code == 0, again.output
    assert bundle.load(tmp_path / "next").description.network == made.network
    scratch = train(*history, "--out", tmp_path / "anew", "--scratch", "--steps", "1", "--set", "data.length=40")
    assert scratch.exit_code == 0, scratch.output
    assert "random" not in scratch.output
    assert bundle.load(tmp_path / "anew").description.training["start"] is None


def test_covariates_become_inputs(tmp_path: Path, history: list[str]) -> None:
    columns = [*history[:3], "--value", "x", "--covariate", "y", "--key", "unit"]
    result = train(*columns, "--out", tmp_path / "mine", *QUICK)
    assert result.exit_code == 0, result.output
    context = bundle.load(tmp_path / "mine").description.context
    assert context.covariates == ("y",)
    assert context.loc[0] == pytest.approx(320, abs=10)  # of the training part, the first four fifths of 0-800


def test_an_interrupted_fit_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--name", "same", *QUICK, "--steps", "6"]
    assert train("--out", tmp_path / "whole", *options).exit_code == 0
    tell = progress.Bar.tell

    def interrupt(self: progress.Bar, now: fit.FitProgress) -> None:
        tell(self, now)
        if now.step == 3:
            signal.raise_signal(signal.SIGINT)

    command = ["train", "--out", str(tmp_path / "mine"), *options]
    with monkeypatch.context() as patch:
        patch.setattr(progress.Bar, "tell", interrupt)
        patch.setattr(sys, "argv", ["stream-gru", *command])
        result = train(*command[1:])
    assert result.exit_code == 130
    assert (
        result.output.splitlines()[-1] == f"interrupted; to go on: {shlex.join(['stream-gru', *command, '--resume'])}"
    )
    assert not (tmp_path / "mine" / "bundle.json").exists()
    resumed = train(*command[1:], "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert bundle.load(tmp_path / "mine").digest == bundle.load(tmp_path / "whole").digest


def test_what_is_wrong_is_said(tmp_path: Path, history: list[str]) -> None:
    out: tuple[Any, ...] = ("--out", tmp_path / "mine")
    for wrong, message in (
        ((history[0], *out), "--time and --value"),
        ((history[0], *out, "--time", "when", "--value", "x"), "has no column when"),
        ((*out, "--set", "horizons=[9,3]"), "ascending"),
        ((*out, "--recipe", "no-such"), "neither a recipe"),
        ((*out, "--set", "plan.learning_rat=1"), "there is no such setting"),
        ((*out, "--resume"), "nothing to resume"),
        ((*out, *QUICK, "--set", "plan.precision=16-mixed", "--device", "cpu"), "needs a CUDA device"),
        ((*history, *out, "--start", tmp_path / "none"), "is not a model bundle"),
        ((*history, *out, "--start", bundle.DEFAULT, "--recipe", "lstm"), "not those of the recipe"),
    ):
        result = train(*wrong)
        assert isinstance(result.exception, StreamGruError), (wrong, result.output)
        assert message in str(result.exception)
    assert "exclude each other" in train(*out, "--scratch", "--start", bundle.DEFAULT).output
    assert not (tmp_path / "mine" / "bundle.json").exists()
