"""Tables of the reference pages, made of the code when the site is built, so that they can't go stale.

A page holds ``<!-- reference: NAME -->`` where the text of `PARTS[NAME]` shall stand. MkDocs runs `on_page_markdown`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import yaml
from annotated_types import Ge, Gt, Le, Lt
from prometheus_client import Counter, Gauge, Histogram, Info
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from stream_gru.metrics import BulkHistogram, GateHistogram, Metrics
from stream_gru.records.output import describe
from stream_gru.settings import Settings
from stream_gru.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
_PLACE = re.compile(r"^<!-- reference: ([a-z-]+) -->$", re.MULTILINE)
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", SecretStr: "secret text"}
_NAMES |= {Path: "path"}
_UNITS = {"s": "seconds", "ms": "milliseconds", "bytes": "bytes", "minutes": "minutes"}
_BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page, before it is rendered. Raises `KeyError` for a part that there is not."""
    return _PLACE.sub(lambda place: PARTS[place[1]](), markdown)


def table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A Markdown table; a bar or a line break in a cell does not end it."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = ([cell.replace("|", "&#124;").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


# -- settings and recipes: two trees of pydantic models


def settings() -> str:
    """Every setting, a table for each section."""
    return _tree(Settings, environment=True)


def recipes() -> str:
    """Every setting of a recipe."""
    return _tree(Recipe, environment=False)


def _tree(model: type[BaseModel], *, environment: bool) -> str:
    return "\n\n".join(_sections(model, (), environment))


def _sections(model: type[BaseModel], path: tuple[str, ...], environment: bool) -> Iterator[str]:
    """Heading, docstring and table of `model`, then of the models within."""
    inner = dict(_inner(model))
    about = " ".join((model.__doc__ or "").partition("\n\n")[0].split()) if path else "Names that stand in no section."
    leaves = {name: field for name, field in model.model_fields.items() if name not in inner}
    heading = f"[{'.'.join(path)}]" if path else "Top level"
    yield f"### {heading}\n\n{about}\n\n{_fields(path, leaves, environment)}"
    for name, part in inner.items():
        yield from _sections(part, (*path, name), environment)


def _inner(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def _fields(path: tuple[str, ...], leaves: Mapping[str, FieldInfo], environment: bool) -> str:
    def row(name: str, field: FieldInfo) -> Sequence[str]:
        variable = f"<br><small>`STREAM_GRU_{'__'.join((*path, name)).upper()}`</small>" if environment else ""
        return f"`{name}`{variable}", kind(name, field), default(field), field.description or ""

    return table(
        ("name" + (" and environment variable" if environment else ""), "type", "default", "meaning"),
        (row(name, field) for name, field in leaves.items()),
    )


def kind(name: str, field: FieldInfo) -> str:
    """What a field may be, in words; its name ends with the unit, if it has one."""
    text = _type(field.annotation)
    if unit := _UNITS.get(name.rpartition("_")[2]):
        text = re.sub("(whole )?number", unit, text)
    bounds = (f"{words} {_number(getattr(limit, at))}" for limit, at, words in _limits(field))
    return ", ".join([text, *bounds])


def _limits(field: FieldInfo) -> Iterator[tuple[Any, str, str]]:
    for limit in field.metadata:
        if type(limit) in _BOUNDS:
            yield limit, *_BOUNDS[type(limit)]


def _type(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{arg}`" for arg in args)
    if origin in (Union, UnionType):
        return " or ".join(_type(arg) for arg in args if arg is not NoneType)
    if origin is tuple:
        return f"list of {_type(args[0])}"
    if hasattr(annotation, "__metadata__"):
        return _type(args[0])
    return _NAMES[annotation]


def default(field: FieldInfo) -> str:
    """The default of a field as TOML has it."""
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()  # a default is no secret
    if value is None or value == ():
        return "unset" if value is None else "`[]`"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"`{_number(value)}`"
    plain = list(value) if isinstance(value, tuple) else value
    return f"`{msgspec.json.encode(plain).decode()}`"


def _number(value: float) -> str:
    """As Python and TOML read it: 1_000_000, 0.1, 1e+30."""
    return f"{value:_}" if abs(value) >= 10_000 and value == int(value) < 1e12 else f"{value:g}"


# -- records


def output() -> str:
    """Every field of the output record."""
    return table(
        ("field", "type", "there", "meaning"),
        ((f"`{column.name}`", column.type, column.when, column.description) for column in describe()),
    )


# -- metrics


def metrics() -> str:
    """Every metric that a worker serves, in the order in which the code names them."""
    made = Metrics()
    kinds = (Counter, Gauge, Histogram, Info, BulkHistogram, GateHistogram)
    rows = (row for each in vars(made).values() if isinstance(each, kinds) for row in _metric(each))
    return table(("name", "type", "labels", "meaning"), rows)


def _metric(collector: Any) -> Iterator[Sequence[str]]:
    labels = ("gate",) if isinstance(collector, GateHistogram) else getattr(collector, "_labelnames", ())
    describe = getattr(collector, "describe", collector.collect)  # our own histograms only collect
    for family in describe():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        named = ", ".join(f"`{label}`" for label in labels) or "none"
        yield f"`{family.name}{suffix}`", family.type, named, family.documentation


# -- the command line, as typer documents itself


def commands() -> str:
    """Every command with its options."""
    call = [sys.executable, "-m", "typer", "stream_gru.cli", "utils", "docs", "--name", "stream-gru"]
    around = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    made = subprocess.run(call, capture_output=True, text=True, check=True, env=around)
    text = made.stdout.partition("\n")[2].replace("{FILE...}...", "FILE...")
    return re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n?", "", text)  # their first words; each has a section below


# -- files of the repository


def alerts() -> str:
    """A section for each alert rule about the workers."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text("utf-8"))
    return "\n\n".join(f"### {rule['alert']}\n\n{_rule(rule)}" for group in rules["groups"] for rule in group["rules"])


def _rule(rule: Mapping[str, Any]) -> str:
    said = {name: re.sub(r"{{[^}]*}}", "…", text.strip()) for name, text in rule["annotations"].items()}
    lasts = f", after {rule['for']}" if "for" in rule else ""
    return (
        f"**{said['summary']}** ({rule['labels']['severity']}{lasts})\n\n{said['description']}\n\n"
        f"What to do: {said['runbook']}\n\n```promql\n{rule['expr'].strip()}\n```"
    )


def model_card() -> str:
    """The card of the package's default model, without its title."""
    card = ROOT / "stream_gru" / "models" / "bundles" / "zero-shot" / "README.md"
    return card.read_text("utf-8").partition("\n")[2].replace("\n## ", "\n### ")


PARTS: Mapping[str, Callable[[], str]] = {
    "settings": settings,
    "recipes": recipes,
    "output": output,
    "metrics": metrics,
    "commands": commands,
    "alerts": alerts,
    "model-card": model_card,
}
