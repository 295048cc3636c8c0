"""Where settings come from: file, environment and flags, merged as plain values and only then validated.

So each of them can supply what the others lack, and what is wrong is said together with where it came from.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import SecretStr, ValidationError

from stream_gru.errors import SettingsError
from stream_gru.settings import secrets
from stream_gru.settings.fields import Settings, SettingsSection

log = logging.getLogger(__name__)

CONFIG_FILE_VARIABLE = "STREAM_GRU_CONFIG"
DEFAULT_CONFIG_FILE = Path("stream-gru.toml")
_PREFIX = "STREAM_GRU_"

Name = tuple[str, ...]
"""``("kafka", "group_id")``, or ``("role",)`` for what stands in no section."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, and where, in words."""

    value: Any
    source: str


@dataclass(slots=True)
class Merged:
    """What all sources gave together; what comes later wins."""

    values: dict[Name, Given] = field(default_factory=dict)

    def tree(self) -> tuple[dict[str, Any], list[str]]:
        """The values of known settings, nested, and a line for each name that there is not."""
        tree: dict[str, Any] = {}
        unknown = []
        for name, given in self.values.items():
            if name in _TYPES:
                section = tree.setdefault(name[0], {}) if len(name) > 1 else tree
                section[name[-1]] = _plain(given.value, _TYPES[name])
            else:
                unknown.append(f"{'.'.join(name)}: {_no_such(name)} ({given.source})")
        return tree, unknown

    def origin(self, name: Name, message: str) -> str:
        """Where a wrong value came from, or the values of a section that `message` names."""
        if (given := self.values.get(name[:2])) is not None or (given := self.values.get(name[:1])) is not None:
            return given.source
        named = {
            given.source: None  # a set that keeps its order
            for (section, *leaf), given in self.values.items()
            if section == name[0] and leaf and re.search(rf"\b{re.escape(leaf[0])}\b", message)
        }
        return ", ".join(named) or "by default"


def load(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    `path` is a TOML file; none means ``$STREAM_GRU_CONFIG``, else ``stream-gru.toml`` in this folder if there is one.
    `flags` maps dotted names (``kafka.group_id``) to values and wins over everything; None values are left out.
    A list may be written ``a,b``; an empty text means unset where a setting may be unset.

    Raises `SettingsError` with one line for each thing that is wrong, naming where it came from. A variable
    ``STREAM_GRU_*`` that means nothing is warned of.
    """
    raised = {tuple(name.split(".")): Given(v, f"flag {name}") for name, v in (flags or {}).items() if v is not None}
    return _validated(Merged({**_file(path), **_environment(os.environ), **raised}))


def changed(base: Settings, changes: Mapping[str, Any]) -> Settings:
    """`base` with other values for some dotted names. Raises `SettingsError` as `load` does."""
    values = {name: Given(_value(base, name), "as it was") for name in _TYPES}
    asked = {tuple(name.split(".")): Given(value, "as asked for") for name, value in changes.items()}
    return _validated(Merged(values | asked))


def _validated(merged: Merged) -> Settings:
    tree, wrong = merged.tree()
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        wrong += _lines(error, merged)
    if wrong:
        raise SettingsError("the configuration is wrong:\n  " + "\n  ".join(wrong))
    return settings


def explain(error: ValidationError, section: str) -> SettingsError:
    """What pydantic says of a section that was made in a program, as ours: it may hold secrets."""
    return SettingsError("; ".join(_lines(error, Merged(), (section,))))


def dump(settings: Settings) -> dict[str, Any]:
    """The effective settings as plain values, secrets masked."""
    tree: dict[str, Any] = settings.model_dump(mode="json")
    tree["state"]["url"] = settings.state.shown_url
    return tree


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give `settings`, secrets included, to another process; what is unset is an empty text."""
    variables = {}
    for name in _TYPES:
        value = _value(settings, name)
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        text = json.dumps(plain) if isinstance(plain, tuple) else "" if plain is None else str(plain)
        variables[_PREFIX + "__".join(name).upper()] = text
    return variables


# -- the sources


def _file(path: Path | None) -> dict[Name, Given]:
    asked = "" if path is not None else os.environ.get(CONFIG_FILE_VARIABLE, "")
    if path is None and not asked and not DEFAULT_CONFIG_FILE.is_file():
        return {}
    file = path or (Path(asked) if asked else DEFAULT_CONFIG_FILE)
    where = f"{file} ({CONFIG_FILE_VARIABLE})" if asked else str(file)
    if not file.exists():
        raise SettingsError(f"configuration file {where} does not exist")
    try:
        tree = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"configuration file {where} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{where} is not valid TOML: byte {error.start} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:  # it names keys and places, never values
        raise SettingsError(f"{where} is not valid TOML: {error}") from None
    found: dict[Name, Given] = {}
    for name, value in tree.items():
        leaves = {(name, leaf): inner for leaf, inner in value.items()} if isinstance(value, dict) else {(name,): value}
        found |= {leaf: Given(inner, where) for leaf, inner in leaves.items()}
    return found


def _environment(variables: Mapping[str, str]) -> dict[Name, Given]:
    """What the variables set; a single underscore is as good as two, as no two settings then have one name."""
    found: dict[Name, Given] = {}
    for variable in sorted(variables, key=lambda v: "__" not in v):  # the proper form first: it wins
        upper = variable.upper()
        if not upper.startswith(_PREFIX) or upper == CONFIG_FILE_VARIABLE or _of_kubernetes(upper, variables):
            continue
        name = _VARIABLES.get(_flat(upper))
        if name is None:
            close = get_close_matches(_flat(upper), _VARIABLES, 1, 0.8)
            hint = f"did you mean {_variable(_VARIABLES[close[0]])}?" if close else "`stream-gru config show` lists all"
            log.warning("the environment variable %s is no setting and is ignored; %s", variable, hint)
        elif name not in found:
            found[name] = Given(variables[variable], f"environment variable {variable}")
        elif found[name].value != variables[variable]:
            log.warning("the environment variable %s is ignored: %s is set too", variable, _variable(name))
    return found


def _of_kubernetes(variable: str, variables: Mapping[str, str]) -> bool:
    """Whether it tells of a service: Kubernetes sets STREAM_GRU_METRICS_PORT for one that is named so."""
    service = re.match(r"(.+)_(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_.+)?)?)$", variable)
    return service is not None and f"{service[1]}_SERVICE_HOST" in variables


# -- what there is


def _settings() -> Iterator[tuple[Name, Any]]:
    for name, top in Settings.model_fields.items():
        if isinstance(top.annotation, type) and issubclass(top.annotation, SettingsSection):
            for leaf, inner in top.annotation.model_fields.items():
                yield (name, leaf), inner.annotation
        else:
            yield (name,), top.annotation


def _value(settings: Settings, name: Name) -> Any:
    value: Any = settings
    for part in name:
        value = getattr(value, part)
    return value


def _variable(name: Name) -> str:
    return _PREFIX + "__".join(name).upper()


def _flat(variable: str) -> str:
    return re.sub("_+", "_", variable)


_TYPES: dict[Name, Any] = dict(_settings())
_VARIABLES: dict[str, Name] = {_flat(_variable(name)): name for name in _TYPES}


def _plain(value: Any, annotation: Any) -> Any:
    """A text as a list where one is needed, and as nothing where there may be nothing."""
    if not isinstance(value, str):
        return value
    if get_origin(annotation) is tuple:
        text = value.strip()
        if text.startswith("["):
            try:
                return json.loads(text)
            except ValueError:
                return value  # pydantic says that it is no list
        return [item.strip() for item in text.split(",")] if text else []
    return None if value == "" and type(None) in get_args(annotation) else value


def _no_such(name: Name) -> str:
    if any(known[0] == name[0] and len(known) > 1 for known in _TYPES) and len(name) == 1:
        example = next(".".join(known) for known in _TYPES if known[0] == name[0])
        return f"is a section, not a setting; name what to set in it, as {example}"
    close = get_close_matches(".".join(name), map(".".join, _TYPES), 1, 0.75)
    return "there is no such setting" + (f"; did you mean {close[0]}?" if close else "")


# -- what is wrong


def _lines(error: ValidationError, merged: Merged, prefix: Name = ()) -> Iterator[str]:
    """One line for each problem, without secrets."""
    for problem in error.errors(include_url=False):
        name = (*prefix, *map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        # Our own checks say what they were given, as far as it may be shown.
        hidden = problem["type"] == "value_error" or _secret(_TYPES.get(name[:2]) or _TYPES.get(name[:1]))
        text = None if hidden else secrets.shown(problem.get("input"))
        where = f" ({merged.origin(name, message)})" if merged.values else ""
        yield f"{'.'.join(name)}: {message}{f', got {text}' if text else ''}{where}"


def _secret(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in get_args(annotation)
