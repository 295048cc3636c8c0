"""The README's examples run and show what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stream_gru.models.bundle import build
from stream_gru.training import recipe
from stream_gru.training.data import describe

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_the_example_finds_its_anomaly(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own README, run as a reader would
    assert re.search(r"^. 90000000 +┆", capsys.readouterr().out, re.MULTILINE)


def test_the_recipe_is_one(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (text,) = (block for block in blocks if "[plan]" in block)
    (tmp_path / "recipe.toml").write_text(text, "utf-8")
    made = recipe.load(tmp_path / "recipe.toml")
    assert (made.network.attention, made.context.holidays, made.data.tokens, made.plan.patience) == (32, "DE", 32768, 5)
    build(describe(made, "readme", None))
