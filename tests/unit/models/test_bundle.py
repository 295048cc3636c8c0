from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stream_gru.engine.engine import Engine
from stream_gru.errors import BundleError
from stream_gru.models import bundle
from stream_gru.models.network import VARIANTS, Network

SMALL = bundle.Description(name="small", network=Network(hidden=4), horizons=(3, 7))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle.save(tmp_path, SMALL, bundle.build(SMALL))
    return tmp_path


def test_the_default_bundle_is_small_and_says_how_it_was_made() -> None:
    loaded = bundle.load()
    assert loaded.horizons == (12, 36)
    assert loaded.name.startswith("zero-shot@")
    assert loaded.description.training["source"] == "synthetic"
    assert sum(file.stat().st_size for file in bundle.DEFAULT.iterdir()) < 300_000


def test_bundles_of_the_package_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundle.load(Path("light")).name.startswith("light@")
    with pytest.raises(BundleError, match="or one of light, zero-shot"):
        bundle.load(Path("lite"))
    monkeypatch.chdir(tmp_path)
    bundle.save(Path("light"), SMALL, bundle.build(SMALL))  # a folder comes first
    assert bundle.load(Path("light")).description == SMALL.model_copy(
        update={"weights_sha256": bundle.load(Path("light")).description.weights_sha256}
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(1)
    forecaster = bundle.build(SMALL)
    saved = bundle.save(tmp_path / "a", SMALL, forecaster)
    loaded = bundle.load(tmp_path / "a")
    assert loaded.digest == saved.digest
    for name, weight in forecaster.state_dict().items():
        assert torch.equal(weight, loaded.forecaster.state_dict()[name])
    assert not any(weight.requires_grad for weight in loaded.forecaster.parameters())
    other = bundle.save(tmp_path / "b", SMALL.model_copy(update={"name": "other"}), forecaster)
    assert other.digest != saved.digest
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [bundle.DESCRIPTION, bundle.WEIGHTS]


def edit(folder: Path, **changes: object) -> None:
    file = folder / bundle.DESCRIPTION
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_folder_without_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a model bundle: No such file"):
        bundle.load(tmp_path)


def test_damaged_weights(folder: Path) -> None:
    file = folder / bundle.WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"weights\.safetensors is damaged: its sha256"):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99, this version reads 2"),
        ({"network": {"hidden": 5}}, "does not fit bundle.json"),
        ({"network": {"hidden": 0}}, r"network\.hidden: .* greater than or equal to 1"),
        ({"network": {"cells": ["nothing"]}}, "there is no cell 'nothing'; there are .*gru"),
        ({"horizons": [7, 3]}, "horizons: steps between 2 and 1000, ascending"),
        ({"surprise": 1}, "surprise: Extra inputs"),
    ],
)
def test_a_wrong_description(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(BundleError, match=message):
        bundle.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_a_description_that_is_no_json(folder: Path, text: str) -> None:
    (folder / bundle.DESCRIPTION).write_bytes(text.encode("latin1"))
    with pytest.raises(BundleError, match=r"bundle\.json: "):
        bundle.load(folder)


def test_no_pickle_is_ever_read(folder: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, folder / bundle.WEIGHTS)
    edit(folder, weights_sha256=__import__("hashlib").sha256((folder / bundle.WEIGHTS).read_bytes()).hexdigest())
    with pytest.raises(BundleError, match="does not fit"):
        bundle.load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_saved_loaded_and_served(variant: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VARIANTS[variant].model_copy(update={"hidden": 8})
    description = bundle.Description(name=variant, network=network, horizons=(3,))
    forecaster = bundle.build(description)
    bundle.save(tmp_path, description, forecaster)
    assert bundle.load(tmp_path).description.network == network
    engine = Engine(tmp_path, capacity=3, device="cpu")
    n = 40
    series = [f"s{i % 3}" for i in range(n)]
    values = np.random.default_rng(0).normal(size=n).cumsum()
    at_once = engine.score(series, np.arange(n) * 1000, values)
    again = Engine(tmp_path, capacity=3, device="cpu")
    parts = [again.score([series[i]], [i * 1000], [values[i]]) for i in range(n)]
    for column in ("yhat", "yhat_lower", "yhat_upper"):
        one_by_one = np.array([part[column][0] for part in parts], float)
        np.testing.assert_allclose(one_by_one, at_once[column].to_numpy(), rtol=1e-5, atol=1e-5)
        assert np.isfinite(one_by_one[3:]).all()
