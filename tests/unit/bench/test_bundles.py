"""Bundles side by side: what is counted is exact, what is timed is only there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle
from stream_gru.models.network import Network
from tests.support.command_line import stream_gru


@pytest.mark.slow
def test_sizes_errors_and_ratios(tmp_path: Path) -> None:
    torch.manual_seed(0)
    description = bundle.Description(name="tiny", network=Network(cells=("rnn",), hidden=4), horizons=(5,))
    made = bundle.save(tmp_path / "tiny", description, bundle.build(description))
    file = tmp_path / "h.csv"
    wave = np.sin(np.arange(400) / 5)
    file.write_text("\n".join(["t,v", *(f"{1_700_000_000 + 60 * i},{v:.5f}" for i, v in enumerate(wave))]))
    asked = ["bench", "bundles", tmp_path / "tiny", "--file", file, "--time", "t", "--value", "v", "--json"]
    rows = json.loads(stream_gru(*asked).stdout)
    shipped, tiny = rows.values()
    assert list(rows) == [bundle.load().name, made.name]
    assert shipped["ratio"] == 1
    assert tiny["readings_per_s"] > 0
    assert tiny["parameters"] == sum(weight.numel() for weight in made.forecaster.parameters())
    assert tiny["row_bytes"] == Stepper(tmp_path / "tiny", capacity=1, device="cpu").layout.row_bytes
    assert list(tiny["error"]) == ["1", "5"]
    assert shipped["error"]["12"] < 0.9  # a sine is no random walk
    assert all(0 <= share <= 1 for share in shipped["coverage"].values())
