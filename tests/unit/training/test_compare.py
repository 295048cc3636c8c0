from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stream_gru.cli import app
from stream_gru.errors import BundleError
from stream_gru.training import compare, data
from stream_gru.training.fit import Fitted, fit
from stream_gru.training.objective import evaluate
from stream_gru.training.prepare import prepare
from stream_gru.training.recipe import Recipe
from tests.support.command_line import stream_gru
from tests.support.comparing import HOUR_MS, NETWORKS, SMALL, waves


def test_recipes_by_name_and_file(tmp_path: Path) -> None:
    file = tmp_path / "wide.toml"
    file.write_text("horizons = [3]\n[network]\nhidden = 9\n")
    found = compare.recipes(["gru", str(file)], {"horizons": [3], "plan.steps": 7})
    assert found["wide"].network.hidden == 9
    assert {one.plan.steps for one in found.values()} == {7}
    with pytest.raises(BundleError, match="same steps ahead"):
        compare.recipes(["gru", str(file)], {})
    with pytest.raises(BundleError, match="two models are called gru"):
        compare.recipes(["gru", "gru"], {})


@pytest.mark.slow
def test_nothing_learns_from_what_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    history = waves(1000)
    seen: list[tuple[str, int, int | None, int]] = []

    def spy(recipe: Recipe, source: data.WindowSource, held_back: data.Windows, *rest: Any, **named: Any) -> Fitted:
        windows = source.draw(50, 64, np.random.default_rng(0))
        latest = max(int(windows.timestamp.max()), int(held_back.timestamp.max()))
        seen.append((str(recipe.network.cells[0]), recipe.plan.seed, source.readings, latest))
        return fit(recipe, source, held_back, *rest, **named)

    monkeypatch.setattr(compare, "fit", spy)
    models = {"gru": SMALL, "rnn": SMALL.model_copy(update={"network": NETWORKS["rnn"]})}
    study = compare.Study(seeds=2, shares=(0.5, 1.0), rounds=2, batches=(1,))
    results = compare.compare(models, history, study)
    assert [each[:3] for each in seen] == [
        (cell, seed, readings) for seed in (0, 1) for readings in (680, 1360) for cell in ("gru", "rnn")
    ]
    assert all(latest < 800 * HOUR_MS for *_, latest in seen)
    assert results.tested == 400
    assert len(results.trials) == 8
    assert len(results.of("rnn")) == 2
    assert set(results.trials[0].by_position) == {10, 25, 50, 100}  # the test part has no more
    assert results.trials[0].steps == 2
    json.dumps(results.plain())


def test_errors_are_those_of_the_trained_model_on_the_test_part(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Fitted] = []

    def keep(*given: Any, **named: Any) -> Fitted:
        made.append(fit(*given, **named))
        return made[-1]

    monkeypatch.setattr(compare, "fit", keep)
    history = waves(1000)
    results = compare.compare({"gru": SMALL}, history, compare.Study(1, (1.0,), 1, (1,)))
    _, test = history.split(SMALL.data.held_back)
    long = SMALL.model_copy(update={"data": SMALL.data.model_copy(update={"length": 1254})})
    prepared = prepare(data.held_back(test, long, 256), made[0].description)
    assert results.trials[0].error == evaluate(made[0].forecaster, prepared).error


def test_the_command_prints_one_object(tmp_path: Path) -> None:
    file, recipe = tmp_path / "waves.csv", tmp_path / "tiny.toml"
    one = waves(700, 1).series[0]
    lines = [f"{at},{value}" for at, value in zip(one.timestamp, one.value, strict=True)]
    file.write_text("\n".join(["t,v", *lines]))
    recipe.write_text('[network]\ncells = ["rnn"]\nhidden = 4\n')
    changes = ["data.length=32", "data.batch=2", "plan.chunk=16", "plan.warm_up=1", "horizons=[3]"]
    arguments = ["compare", str(file), "--time", "t", "--value", "v", "--model", str(recipe), "--model", "rnn"]
    arguments += [
        "--steps",
        "1",
        "--seeds",
        "1",
        "--quick",
        "--rounds",
        "2",
        "--json",
        "--out",
        str(tmp_path / "all.json"),
    ]
    arguments += [part for change in changes for part in ("--set", change)]
    result = json.loads(stream_gru(*arguments).stdout)
    assert list(result["models"]) == ["tiny", "rnn"]
    assert result["models"]["tiny"]["size"]["state"] == 16
    assert len(result["trials"]) == 2
    assert json.loads((tmp_path / "all.json").read_text()) == result
    wrong = CliRunner().invoke(app, ["compare", "--model", "gru"])
    assert "history" in str(wrong.exception)
