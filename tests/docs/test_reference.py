"""The reference tables: each is used, and has everything that the code has."""

from __future__ import annotations

import re

import yaml
from prometheus_client import generate_latest

from stream_gru.metrics import Metrics
from stream_gru.records.output import ForecastStep, OutputRecord
from stream_gru.settings import Settings
from stream_gru.settings.sources import environment
from stream_gru.training.recipe import Recipe
from tests.support import texts

made = texts.reference()


def test_every_part_is_in_a_page_and_every_place_has_its_part() -> None:
    places = [name for page in texts.PAGES for name in re.findall(r"<!-- reference: (.*) -->", texts.text(page))]
    assert sorted(places) == sorted(made.PARTS)
    assert made.on_page_markdown("a\n<!-- reference: metrics -->\nb").startswith("a\n| name |")


def test_every_setting_is_there_with_its_variable_and_a_meaning() -> None:
    table = made.settings()
    assert set(re.findall(r"`(STREAM_GRU_\w+)`", table)) == set(environment(Settings()))
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_types_defaults_and_bounds_are_in_words() -> None:
    table = made.settings()
    assert "seconds, above 0, at most 604_800 | `10` |" in table
    assert '| `earliest` or `latest` | `"earliest"` |' in table
    assert '| list of text | `["value"]` |' in table


def test_every_setting_of_a_recipe_has_a_meaning() -> None:
    table = made.recipes()
    assert all(f"[{part}]" in table or f"`{part}`" in table for part in Recipe.model_fields)
    assert [row for row in table.splitlines() if row.endswith("|  |")] == []


def test_every_field_of_an_output_is_there() -> None:
    named = re.findall(r"^\| `([\w.\[\]]+)`", made.output(), re.MULTILINE)
    steps = [f"forecast[].{name}" for name in ForecastStep.__struct_fields__]
    assert sorted(named) == sorted([*OutputRecord.__struct_fields__, *steps])


def test_every_metric_is_there() -> None:
    page = generate_latest(Metrics().registry).decode()
    served = set(re.findall(r"^# TYPE (stream_gru_\S+)", page, re.MULTILINE))
    served = {name for name in served if not name.endswith("_created")}
    assert set(re.findall(r"`(stream_gru_\w+)`", made.metrics())) == served


def test_every_command_is_there() -> None:
    text = made.commands()
    assert {"worker", "topics create", "bench gates"} <= set(
        re.findall(r"^#+ `stream-gru ([a-z ]+)`", text, re.MULTILINE)
    )
    assert "--from-beginning" in text


def test_every_alert_is_there() -> None:
    rules = yaml.safe_load((texts.ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text("utf-8"))
    names = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert re.findall(r"^### (\w+)", made.alerts(), re.MULTILINE) == names
    assert "{{" not in made.alerts().replace("{{ $labels", "{{")
