"""Columns of forecasts -> output records as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from math import log10
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from stream_gru.codecs._fields import PayloadLayout
from stream_gru.columns import LEVEL_NAMES, Floats, Forecasts, Ints
from stream_gru.records.output import COLUMNS, ForecastStep, OutputRecord
from stream_gru.records.schema import Column, ColumnKind, Presence

_ENCODER = msgspec.json.Encoder()
_LEVELS = np.array(LEVEL_NAMES, object)
_LARGEST_EXPONENT = 300  # of the powers of ten that numbers are rounded by: float64 holds up to 1e308
_POWERS = 10.0 ** np.arange(-_LARGEST_EXPONENT, _LARGEST_EXPONENT + 1)


def encode_each(items: Iterable[Any]) -> list[bytes]:
    """The JSON of each item, made and dropped one by one: as quick as all in one buffer that is then split."""
    return list(map(_ENCODER.encode, items))


class OutputWriter:
    """Writes forecasts of the named features for the given horizons, by the notes of the output record."""

    def __init__(self, horizons: Sequence[int], features: Sequence[str]) -> None:
        """Raises `SettingsError` for a feature that JSON can't name."""
        self._horizons = tuple(horizons)
        self._by_name = PayloadLayout([((name,), float) for name in features]).struct if len(features) > 1 else None
        self._columns = [self._from_forecasts(name, column) for name, column in COLUMNS.items()]

    def write(
        self, series: Sequence[bytes], timestamp: Ints, ids: Sequence[str], model: str, forecasts: Forecasts
    ) -> list[bytes]:
        """N output records for N readings and their forecasts."""
        n, k = forecasts.ahead.shape[:2]
        if not len(series) == len(timestamp) == len(ids) == n or k != len(self._horizons):
            raise ValueError(f"{n} forecasts of {k} horizons for {len(series)} readings of {len(self._horizons)}")
        given: dict[str, Iterable[Any]] = {
            "series": [key.decode() for key in series],
            "timestamp": timestamp.tolist(),
            "model": repeat(model),
            "id": ids,
        }
        columns = (given[column] if isinstance(column, str) else column(forecasts) for column in self._columns)
        return encode_each(map(OutputRecord, *columns))

    def _from_forecasts(self, name: str, column: Column) -> str | Callable[[Forecasts], Iterable[Any]]:
        """What makes a column of N forecasts; the name of one that the caller gives."""
        if column.kind in {ColumnKind.TEXT, ColumnKind.TIME}:
            return name
        if column.when is Presence.EXPLAINED and self._by_name is None:
            return lambda _: repeat(msgspec.UNSET)
        convert = (
            self._where_any if column.when in {Presence.ENSEMBLE, Presence.EXPLAINED} else self._converters[column.kind]
        )
        field = attrgetter(column.source or name)
        return lambda forecasts: convert(field(forecasts))

    @property
    def _converters(self) -> dict[ColumnKind, Callable[[Any], Iterable[Any]]]:
        """How the values of each kind become Python's."""
        return {
            ColumnKind.READING: self._quantity,
            ColumnKind.QUANTITY: lambda column: self._quantity(shorten(column)),
            ColumnKind.NUMBER: lambda column: shorten(column).tolist(),
            ColumnKind.SCORE: lambda column: _score(column).tolist(),
            ColumnKind.FLAG: np.ndarray.tolist,
            ColumnKind.COUNT: _counts,
            ColumnKind.LEVEL: lambda column: _LEVELS[column].tolist(),
            ColumnKind.STEPS: lambda column: self._ahead(shorten(column)),
        }

    def _quantity(self, column: Floats) -> list[Any]:
        """(N, F) -> N numbers, or N structs by feature name where there are several."""
        if self._by_name is None:
            numbers: list[Any] = column[:, 0].tolist()
            return numbers
        return list(map(self._by_name, *column.T.tolist()))

    def _where_any(self, column: Floats) -> Iterable[Any]:
        """(N, F) -> as `_quantity`, but nothing at all for rows that have none."""
        rows = np.flatnonzero(~np.isnan(column).all(axis=1))
        if not len(rows):
            return repeat(msgspec.UNSET)
        quantities: list[Any] = [msgspec.UNSET] * len(column)
        for row, quantity in zip(rows.tolist(), self._quantity(shorten(column[rows])), strict=True):
            quantities[row] = quantity
        return quantities

    def _ahead(self, ahead: Floats) -> list[tuple[ForecastStep, ...]]:
        """(N, K, 3, F) -> for each of N rows its K steps."""
        steps = [
            map(ForecastStep, repeat(step), *(self._quantity(ahead[:, k, part]) for part in range(3)))
            for k, step in enumerate(self._horizons)
        ]
        return list(zip(*steps, strict=True)) if steps else [()] * len(ahead)


def shorten(x: Floats) -> Floats:
    """`x` to 9 or 10 significant digits, which is more than a float32 has: off by 1e-8 of `x` at most, and shorter."""
    digits = 9 - np.ceil(np.frexp(x)[1] * log10(2)).astype(np.int64)  # behind the point
    power = _POWERS[np.clip(digits, -_LARGEST_EXPONENT, _LARGEST_EXPONENT) + _LARGEST_EXPONENT]
    shortened: Floats = np.rint(x * power) / power
    return shortened


def _counts(column: Ints) -> Iterable[Any]:
    """(N,) -> as many numbers, but nothing at all for 0."""
    return [count or msgspec.UNSET for count in column.tolist()] if column.any() else repeat(msgspec.UNSET)


def _score(x: Floats) -> Floats:
    """Shortened, but never across 1: that is where a reading becomes anomalous."""
    shortened = shorten(x)
    return np.where((shortened > 1) == (x > 1), shortened, x)
