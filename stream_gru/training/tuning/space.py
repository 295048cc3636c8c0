"""What a search may vary, and between which values."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_gru.errors import BundleError, SettingsError
from stream_gru.training import recipe as recipes
from stream_gru.training.recipe import Recipe

if TYPE_CHECKING:
    from optuna.trial import Trial

Number = int | float


class Dimension(NamedTuple):
    """A setting of a recipe that may be searched."""

    setting: str
    whole: bool = True
    log: bool = True  # values that differ by a factor are equally far apart


DIMENSIONS: dict[str, Dimension] = {
    "hidden": Dimension("network.hidden"),
    "layers": Dimension("network.layers", log=False),
    "dropout": Dimension("network.dropout", whole=False, log=False),
    "learning_rate": Dimension("plan.learning_rate", whole=False),
    "batch": Dimension("data.batch"),
    "length": Dimension("data.length"),
}


@dataclass(frozen=True, slots=True)
class Range:
    """Any number from `low` to `high`."""

    low: Number
    high: Number

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: tuple[Number, ...]

    def __str__(self) -> str:
        return ",".join(f"{value:g}" for value in self.values)


Space = dict[str, Range | Choice]

WIDE: Space = {
    "hidden": Choice((16, 32, 64, 128)),
    "layers": Range(1, 3),
    "dropout": Range(0.0, 0.4),
    "learning_rate": Range(5e-4, 2e-2),
    "batch": Choice((16, 32, 64, 128)),
    "length": Choice((128, 256, 512, 1024)),
}
"""Where random and TPE search look when nothing else is said."""
GRID: Space = {"hidden": Choice((32, 64)), "layers": Choice((1, 2)), "learning_rate": Choice((1e-3, 3e-3, 1e-2))}
"""The same for a grid, each combination of which costs a fit."""


def read(file: Path | None, flags: Mapping[str, str | None]) -> Space:
    """The table [tune] of a TOML file and, over it, flags. Raises `SettingsError` for what is no range of a dimension.

    A flag is ``16,32,64`` (one of these), ``16..64`` (anything between) or ``16`` (that one). In the file a list, a
    table with `low` and `high`, a number, or a text like a flag's.
    """
    space: Space = {}
    if file is not None:
        try:
            tree = tomllib.loads(file.read_text())
        except OSError as error:
            raise SettingsError(f"{file} can't be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file} is no TOML: {error}") from None
        table = tree.get("tune")
        if not isinstance(table, dict):
            raise SettingsError(f"{file} has no table [tune], with lines like hidden = [16, 32, 64]")
        space = {name: parse(name, value, f"{file}: tune.{name}") for name, value in table.items()}
    for name, text in flags.items():
        if text is not None:
            space[name] = parse(name, text, f"--{name.replace('_', '-')}")
    return space


def parse(name: str, value: Any, where: str) -> Range | Choice:
    """`value` as the values of the dimension `name`; messages begin with `where`."""
    if name not in DIMENSIONS:
        raise SettingsError(f"{where}: there is no such dimension; there are {', '.join(DIMENSIONS)}")
    match value:
        case str() if ".." in value:
            ends = value.split("..")
        case str():
            return _choice(name, value.split(","), where)
        case {"low": low, "high": high, **others} if not others:
            ends = [low, high]
        case list():
            return _choice(name, value, where)
        case int() | float():
            return _choice(name, [value], where)
        case _:
            raise SettingsError(f"{where}: {value!r} is neither values nor low and high; write 16,32,64 or 16..64")
    low, high = _numbers(name, ends, where) if len(ends) == 2 else (1, 0)
    if low >= high:
        raise SettingsError(f"{where}: a range goes from a smaller number to a greater one, as 16..64; got {value!r}")
    if DIMENSIONS[name].log and low <= 0:
        raise SettingsError(f"{where}: {low:g} must be more than 0")
    return Range(low, high)


def _choice(name: str, values: Iterable[Any], where: str) -> Choice:
    numbers = _numbers(name, values, where)
    if not numbers or len(set(numbers)) < len(numbers):
        raise SettingsError(f"{where}: needs values, all different, as 16,32,64")
    return Choice(tuple(sorted(numbers)))


def _numbers(name: str, values: Iterable[Any], where: str) -> list[Number]:
    """Raises `SettingsError` for what is no finite number, or not a whole one where that is needed."""
    numbers: list[Number] = []
    for value in values:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise SettingsError(f"{where}: {value!r} is no number") from None
        whole = DIMENSIONS[name].whole
        if isinstance(value, bool) or not math.isfinite(number) or (whole and number != int(number)):
            raise SettingsError(f"{where}: {value!r} is no {'whole ' * whole}number")
        numbers.append(int(number) if whole else number)
    return numbers


def check(space: Space, base: Recipe) -> None:
    """Raises `SettingsError` for an end of a range that `base` can't take."""
    if "batch" in space and base.data.tokens is not None:
        raise SettingsError("batch: the recipe's data.tokens decides how large a batch is; tune one or the other")
    for name, values in space.items():
        ends = (values.low, values.high) if isinstance(values, Range) else values.values
        for value in ends:
            try:
                recipe(base, {name: value})
            except BundleError as error:
                raise SettingsError(f"{name} {values}: {error}") from None


def recipe(base: Recipe, chosen: Mapping[str, Number]) -> Recipe:
    """`base` with the values of dimensions by name. Raises `BundleError` for what does not go together."""
    settings = {DIMENSIONS[name].setting: value for name, value in chosen.items()}
    return recipes.load(None, {**base.model_dump(), **settings})


def suggest(trial: Trial, space: Space) -> dict[str, Number]:
    """The values that a trial is to try."""
    chosen: dict[str, Number] = {}
    for name, values in space.items():
        whole, log = DIMENSIONS[name].whole, DIMENSIONS[name].log
        if isinstance(values, Choice):
            chosen[name] = trial.suggest_categorical(name, values.values)
        elif whole:
            chosen[name] = trial.suggest_int(name, int(values.low), int(values.high), log=log)
        else:
            chosen[name] = trial.suggest_float(name, values.low, values.high, log=log)
    return chosen


def grid(space: Space) -> dict[str, list[Number]]:
    """The values to combine. Of a range they are its ends and its middle."""
    return {
        name: list(values.values if isinstance(values, Choice) else _three(values, DIMENSIONS[name]))
        for name, values in space.items()
    }


def _three(ends: Range, dimension: Dimension) -> list[Number]:
    middle = math.sqrt(ends.low * ends.high) if dimension.log else (ends.low + ends.high) / 2
    if not dimension.whole:
        return [ends.low, middle, ends.high]
    return sorted({ends.low, round(middle), ends.high})
