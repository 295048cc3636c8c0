from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from stream_gru.errors import SettingsError
from stream_gru.settings import toml
from stream_gru.training import recipe
from stream_gru.training.tuning import space
from stream_gru.training.tuning.space import Choice, Range

BASE = recipe.Recipe()


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("hidden", "64,16", Choice((16, 64))),
        ("hidden", "16..64", Range(16, 64)),
        ("hidden", " 32 ", Choice((32,))),
        ("dropout", "0..0.5", Range(0.0, 0.5)),
        ("learning_rate", "1e-3,1e-2", Choice((1e-3, 1e-2))),
        ("layers", [1, 2], Choice((1, 2))),
        ("layers", 2, Choice((2,))),
        ("length", {"low": 64, "high": 128}, Range(64, 128)),
    ],
)
def test_ranges_are_read(name: str, text: Any, values: Range | Choice) -> None:
    assert space.parse(name, text, "here") == values


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("width", "1,2", "no such dimension; there are hidden, layers"),
        ("hidden", "64..16", "from a smaller number to a greater one"),
        ("hidden", "1..2..3", "from a smaller number to a greater one"),
        ("hidden", "16,16", "all different"),
        ("hidden", [], "needs values"),
        ("hidden", "16,many", "'many' is no number"),
        ("hidden", "1.5", "'1.5' is no whole number"),
        ("hidden", [True], "True is no whole number"),
        ("dropout", "nan", "'nan' is no number"),
        ("learning_rate", "0..1", "0 must be more than 0"),
        ("hidden", {"low": 1, "high": 2, "step": 1}, "neither values nor low and high"),
        ("hidden", None, "neither values nor low and high"),
    ],
)
def test_what_is_no_range_is_refused(name: str, text: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=rf"^here: .*{message}"):
        space.parse(name, text, "here")


@pytest.mark.parametrize(
    ("dimensions", "base", "message"),
    [
        ({"hidden": Range(16, 9999)}, BASE, r"hidden 16..9999: recipe: network.hidden: .* less than or equal to 4096"),
        ({"dropout": Choice((0.1, 1.0))}, BASE, "dropout 0.1,1: .* less than 1"),
        ({"length": Choice((8, 64))}, BASE, "length 8,64: .* greater than or equal to 16"),
        ({"hidden": Choice((6,))}, recipe.load("transformer"), "heads: 4 do not divide"),
        ({"batch": Choice((6,))}, recipe.load(None, {"data.tokens": 4096}), "data.tokens decides"),
    ],
)
def test_a_range_that_the_recipe_can_not_take(dimensions: space.Space, base: recipe.Recipe, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        space.check(dimensions, base)


def test_a_file_of_ranges(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text('[tune]\nhidden = [16, 32]\nlearning_rate = {low = 1e-4, high = 1e-2}\ndropout = "0..0.3"\n')
    read = space.read(file, {"hidden": "8,4", "layers": None})
    assert read == {"hidden": Choice((4, 8)), "learning_rate": Range(1e-4, 1e-2), "dropout": Range(0.0, 0.3)}
    for text, message in (
        ("[tune]\nwidth = 3", r"space.toml: tune.width: there is no such dimension"),
        ("hidden = 3", r"no table \[tune\]"),
        ("[tune", "is no TOML"),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError, match=message):
            space.read(file, {})
    with pytest.raises(SettingsError, match="can't be read"):
        space.read(tmp_path / "none.toml", {})


def test_a_recipe_survives_its_way_through_toml() -> None:
    whole = recipe.load("stacked", {"context.covariates": ["größe", 'a"b\\c', "🌡"], "data.augment.noise": 1e-05})
    assert recipe.Recipe.model_validate(tomllib.loads("\n".join(toml.lines(whole.model_dump(mode="json"))))) == whole
