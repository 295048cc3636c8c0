"""What users hand to an `Engine`, checked: what can't be meant is a message that says what and where."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from narwhals.exceptions import NarwhalsError
from polars.exceptions import PolarsError

from stream_gru import settings
from stream_gru.columns import Floats
from stream_gru.errors import BundleError, DataError, SettingsError, StreamGruError
from stream_gru.models.bundle import Bundle

RESERVED = ("series", "timestamp")  # the columns of a frame that are no features
_NULLS = ("NoneType", "NAType", "NaTType", "MaskedConstant")  # what libraries call what is missing


def missing(given: Any) -> bool:
    """Whether it stands for nothing: None, NaN, pandas' NA and NaT."""
    return type(given).__name__ in _NULLS or (isinstance(given, float) and math.isnan(given))


def bundle(given: Any) -> Bundle | Path | None:
    """A loaded model, a folder or a name; none. Raises `BundleError`."""
    if given is None or isinstance(given, Bundle):
        return given
    if not isinstance(given, str | PathLike):
        raise BundleError(f"bundle: {given!r} is no model; give the name of one in the package, a folder or a Bundle")
    return Path(fspath(given))


def features(given: Any) -> int | tuple[str, ...]:
    """How many values a reading has, or their names. Raises `SettingsError`."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Iterable):
        return _whole("features", given, 1, 10_000)
    names = tuple(given)
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise SettingsError(f"features: {list(names)} are not different names, at least one; give a list of texts")
    if taken := [name for name in names if name in RESERVED]:
        raise SettingsError(f"features: {taken[0]} is what another column of a reading is called; rename the feature")
    return names


def device(given: Any) -> str:
    """Where to step. Raises `SettingsError`."""
    if not isinstance(given, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", given):
        raise SettingsError(f"device: {given!r} is none; give auto, cpu, cuda or cuda:1")
    return given


def threads(given: Any) -> int:
    """CPU threads. Raises `SettingsError`."""
    return _whole("threads", given, 1, 256)


def capacity(given: Any) -> int:
    """The most series. Raises `SettingsError`."""
    return _whole("capacity", given, 1, 2**31 - 1)


def horizons(given: Any) -> tuple[int, ...]:
    """Steps ahead. Raises `SettingsError`."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SettingsError(f"horizons: {given!r} is no list of steps ahead, as [12, 36]")
    return tuple(_whole("horizons", step, 2, 1000) for step in given)


def section(name: str, given: Any, kind: type[settings.SettingsSection]) -> None:
    """Raises `SettingsError` where settings are of another kind."""
    if given is not None and not isinstance(given, kind):
        raise SettingsError(f"{name}: {given!r} is no {kind.__name__}; give stream_gru.{kind.__name__}(...)")


def steps(given: Any, most: int) -> int:
    """How many steps to forecast. Raises `DataError`."""
    return _whole("steps", given, 1, most, DataError)


def path(given: Any) -> Path:
    """Where a file is. Raises `DataError`."""
    if not isinstance(given, str | PathLike) or not isinstance(fspath(given), str) or not fspath(given):
        raise DataError(f"{given!r} is no path of a file")
    return Path(fspath(given))


def names(given: Any) -> list[str]:
    """The series of N readings. Raises `DataError`."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise DataError(f"{given!r} are no names of series; give a list of texts, one for each reading")
    series = list(given)
    for row, name in enumerate(series):
        if not isinstance(name, str) or not name or not _utf8(name):
            raise DataError(f"reading {row}: the series is {name!r}; a name is a text that is not empty")
    return series


def numbers(what: str, given: Any, n: int, columns: Sequence[str]) -> Floats:
    """(n, len(columns)) of numbers; None, NaN, NA and what is masked are NaN.

    With one column (n,) will do. Raises `DataError`.
    """
    width = len(columns)
    wanted = f"{what}: numbers or None for {n} readings" + (f" of {', '.join(columns)}" if width > 1 else "")
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise DataError(f"{wanted} are wanted, not {given!r}")
    with explained(f"{wanted} are wanted"):
        array = given if isinstance(given, np.ndarray) else np.asarray(_rows(given))
        if isinstance(array, np.ma.MaskedArray):
            array = np.ma.filled(array.astype(np.float64), np.nan)
        if array.shape != (n, width) and not (width == 1 and array.shape == (n,)):
            raise DataError(f"{wanted} are wanted; they have the shape {array.shape}, not ({n}, {width})")
        if array.dtype.kind not in "fiu":
            flat = [_number(what, i // max(width, 1), x) for i, x in enumerate(array.ravel().tolist())]
            array = np.array(flat, np.float64)
        return array.astype(np.float64).reshape(n, width)


def one(given: Any, columns: Sequence[str]) -> list[Any]:
    """The values of one reading: a number, as many as there are columns, or some by name. Raises `DataError`."""
    by_name = given.to_dict() if hasattr(given, "to_dict") and hasattr(given, "index") else given  # a row of pandas
    if isinstance(by_name, Mapping):
        unknown = [name for name in by_name if name not in columns]
        if unknown or not by_name:
            raise DataError(
                f"value: the reading names {', '.join(map(repr, unknown)) or 'nothing'}; the features are "
                f"{', '.join(columns)}"
            )
        return [by_name.get(name) for name in columns]
    if isinstance(by_name, str | bytes) or not isinstance(by_name, Iterable):
        by_name = [by_name]
    values = list(by_name)
    if len(values) != len(columns):
        raise DataError(f"value: {len(values)} of the {len(columns)} numbers of {', '.join(columns)} are given")
    return values


def _rows(given: Iterable[Any]) -> list[Any]:
    return [row.tolist() if isinstance(row, np.ndarray) else row for row in given]


def _number(what: str, row: int, given: Any) -> float:
    if missing(given):
        return math.nan
    if isinstance(given, bool) or not isinstance(given, Number):
        raise DataError(f"reading {row}: {what} {given!r} is no number; cast it, or give None where there is none")
    return float(given)  # type: ignore[arg-type]  # whatever counts as a number can be one


def _whole(name: str, given: Any, least: int, most: int, kind: type[StreamGruError] = SettingsError) -> int:
    try:
        number = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise kind(f"{name}: {given!r} is no whole number between {least:,} and {most:,}")
    return number


def _utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def explained(what: str) -> Iterator[None]:
    """What libraries raise of columns that they can't read is a `DataError` that begins with `what`."""
    try:
        yield
    except (NarwhalsError, PolarsError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what}; {error}") from None
