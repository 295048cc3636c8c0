"""Columns of forecasts -> output records as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from math import log10
from typing import Any

import msgspec
import numpy as np

from stream_gru.codecs._fields import Layout
from stream_gru.columns import Floats, Forecasts, Ints, Level
from stream_gru.records.output import ForecastStep, OutputRecord

_ENCODER = msgspec.json.Encoder()
_LEVELS = np.array([level.name.lower() for level in Level], object)
_POWERS = 10.0 ** np.arange(-300, 301)


def encode_each(items: Iterable[Any]) -> list[bytes]:
    """The JSON of each item, made and dropped one by one: as quick as all in one buffer that is then split."""
    return list(map(_ENCODER.encode, items))


class Writer:
    """Writes forecasts of the named features for the given farther horizons."""

    def __init__(self, horizons: Sequence[int], features: Sequence[str]) -> None:
        """Raises `SettingsError` for a feature that JSON can't name."""
        self._horizons = tuple(horizons)
        self._by_name = Layout([((name,), float) for name in features]).struct if len(features) > 1 else None

    def write(
        self, series: Sequence[bytes], timestamp: Ints, ids: Sequence[str], model: str, forecasts: Forecasts
    ) -> list[bytes]:
        """N output records for N readings and their forecasts."""
        n, k = forecasts.ahead.shape[:2]
        if not len(series) == len(timestamp) == len(ids) == n or k != len(self._horizons):
            raise ValueError(f"{n} forecasts of {k} horizons for {len(series)} readings of {len(self._horizons)}")
        columns: list[Iterable[Any]] = [
            [key.decode() for key in series],
            timestamp.tolist(),
            self._quantity(forecasts.y),
            *(self._quantity(shorten(column)) for column in (forecasts.yhat, forecasts.lower, forecasts.upper)),
            _score(forecasts.anomaly_score).tolist(),
            shorten(forecasts.anomaly_grade).tolist(),
            forecasts.is_anomaly.tolist(),
            forecasts.alert.tolist(),
            _score(forecasts.alert_score).tolist(),
            _LEVELS[forecasts.level].tolist(),
            self._ahead(shorten(forecasts.ahead)),
            repeat(model),
            ids,
            self._where_any(forecasts.spread),
            _counts(forecasts.imputed),
            *(self._by_feature(column) for column in (forecasts.relevant_attribution, forecasts.expected_values)),
        ]
        return encode_each(map(OutputRecord, *columns))

    def _quantity(self, column: Floats) -> list[Any]:
        """(N, F) -> N numbers, or N structs by feature name where there are several."""
        if self._by_name is None:
            numbers: list[Any] = column[:, 0].tolist()
            return numbers
        return list(map(self._by_name, *column.T.tolist()))

    def _by_feature(self, column: Floats) -> Iterable[Any]:
        """(N, F) -> as `_where_any`, and nothing at all with one feature."""
        return repeat(msgspec.UNSET) if self._by_name is None else self._where_any(column)

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
    power = _POWERS[np.clip(digits, -300, 300) + 300]
    shortened: Floats = np.rint(x * power) / power
    return shortened


def _counts(column: Ints) -> Iterable[Any]:
    """(N,) -> as many numbers, but nothing at all for 0."""
    return [count or msgspec.UNSET for count in column.tolist()] if column.any() else repeat(msgspec.UNSET)


def _score(x: Floats) -> Floats:
    """Shortened, but never across 1: that is where a reading becomes anomalous."""
    shortened = shorten(x)
    return np.where((shortened > 1) == (x > 1), shortened, x)
