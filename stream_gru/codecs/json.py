"""JSON: one object a reading in, one object a reading out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stream_gru.codecs import Decoded, _fields, _timestamps
from stream_gru.codecs._objects import Reader, Wanted
from stream_gru.codecs._outputs import OutputWriter, encode_each
from stream_gru.columns import Floats, Forecasts, Ints
from stream_gru.errors import DataError
from stream_gru.records import output
from stream_gru.records.dead_letters import Reason
from stream_gru.settings import Input


class Codec:
    """See `stream_gru.codecs.Codec`. A dot in the name of a field leads into an object."""

    def __init__(self, settings: Input, horizons: Sequence[int]) -> None:
        """Raises `SettingsError` for fields that can't be read beside each other."""
        self._settings = settings
        self._series = [_fields.parse(name) for name in settings.series]
        self._timestamp = _fields.parse(settings.timestamp)
        self._values = [_fields.parse(name) for name in settings.values]
        self._covariates = [_fields.parse(name) for name in settings.covariates]
        self._reader = Reader(
            [
                *(Wanted(path, str | int, Reason.INVALID_SERIES) for path in self._series),
                Wanted(self._timestamp, _timestamps.KINDS[settings.timestamp_format], Reason.INVALID_TIMESTAMP),
                *(Wanted(path, float | None, Reason.INVALID_VALUE) for path in self._values),
                *(Wanted(path, float | None, Reason.INVALID_VALUE, optional=True) for path in self._covariates),
            ]
        )
        self._unit = settings.timestamp_format
        self._writer = OutputWriter(horizons, [".".join(path) for path in self._values])
        self._join = "/".join("{}" for _ in self._series).format

    def decode(self, keys: Sequence[bytes | None], payloads: Sequence[bytes | None], record_timestamp: Ints) -> Decoded:
        """See `stream_gru.codecs.Codec.decode`."""
        n = len(payloads)
        columns = len(self._values) + len(self._covariates)
        decoded = Decoded([b""] * n, np.zeros(n, np.int64), np.full((n, columns), np.nan))
        self._check_payloads(decoded, payloads)
        if not self._series:
            self._check_keys(decoded, range(n), keys)
        rows = decoded.good(range(n))
        objects, refused = self._reader.read(_take(payloads, rows))
        for i, (reason, detail) in refused.items():
            decoded.refuse(rows[i], reason, detail)
        self._fill(decoded, decoded.good(rows), objects, keys, record_timestamp)
        return decoded

    def _fill(
        self,
        decoded: Decoded,
        rows: Sequence[int],
        objects: list[Any],
        keys: Sequence[bytes | None],
        record_timestamp: Ints,
    ) -> None:
        """Write the objects of `rows` into their places, and refuse those with a value that may not be."""
        every = len(rows) == len(keys)
        index = slice(None) if every else np.array(rows, np.int64)
        decoded.timestamp[index] = _timestamps.to_ms(self._column(objects, self._timestamp), self._unit)
        for number, path in enumerate([*self._values, *self._covariates]):
            decoded.value[index, number] = np.fromiter(self._column(objects, path), np.float64)  # None becomes NaN
        self._check_timestamps(decoded, record_timestamp)
        self._check_values(decoded)
        if self._series:
            columns = [self._column(objects, path) for path in self._series]
            series: list[bytes] = [name.encode() for name in map(self._join, *columns)]
            self._check_keys(decoded, rows, series)
        else:
            series = _take(keys, rows)
        if every:
            decoded.series = series
        else:
            for row, name in zip(rows, series, strict=True):
                decoded.series[row] = name
        for row in decoded.bad:
            decoded.series[row] = b""

    def encode(
        self, series: Sequence[bytes], timestamp: Ints, ids: Sequence[str], model: str, forecasts: Forecasts
    ) -> list[bytes]:
        """See `stream_gru.codecs.Codec.encode`."""
        return self._writer.write(series, timestamp, ids, model, forecasts)

    def decode_output(self, payload: bytes) -> output.OutputRecord:
        """See `stream_gru.codecs.Codec.decode_output`."""
        return output.decode_output(payload)

    def encode_readings(self, series: Sequence[bytes], timestamp: Ints, value: Floats) -> list[bytes]:
        """See `stream_gru.codecs.Codec.encode_readings`."""
        unknown = [[None] * len(value)] * len(self._covariates)
        columns: dict[_fields.Path, Iterable[Any]] = {
            self._timestamp: _timestamps.from_ms(timestamp, self._unit),
            **dict(zip([*self._values, *self._covariates], [*value.T.tolist(), *unknown], strict=False)),
        }
        if self._series:
            names = [self._split(key) for key in series]
            columns |= {path: [parts[i] for parts in names] for i, path in enumerate(self._series)}
        return encode_each(self._reader.layout.build(columns))

    def _column(self, objects: list[Any], path: _fields.Path) -> list[Any]:
        return list(map(self._reader.layout.getter(path), objects))

    def _split(self, series: bytes) -> list[str]:
        if not self._series[1:]:
            return [series.decode()]
        names = series.decode().split("/")
        if len(names) != len(self._series):
            raise DataError(
                f"input.series joins {len(self._series)} fields by '/'; {series.decode()!r} has {len(names)}"
            )
        return names

    def _check_payloads(self, decoded: Decoded, payloads: Sequence[bytes | None]) -> None:
        limit = self._settings.max_payload_bytes
        if all(payloads) and max(map(len, payloads), default=0) <= limit:  # type: ignore[arg-type]  # none is None here
            return
        for row, payload in enumerate(payloads):
            if payload is None:
                decoded.refuse(row, Reason.TOMBSTONE, "the record has no payload")
            elif len(payload) > limit:
                decoded.refuse(row, Reason.PAYLOAD_TOO_LARGE, f"{len(payload)} bytes, more than {limit}")

    def _check_keys(self, decoded: Decoded, rows: Iterable[int], keys: Sequence[bytes | None]) -> None:
        limit = self._settings.max_key_bytes
        if all(keys) and max(map(len, keys), default=0) <= limit and b"".join(keys).isascii():  # type: ignore[arg-type]
            return
        for row, key in zip(rows, keys, strict=True):
            if not key:
                decoded.refuse(row, Reason.KEY_MISSING, "nothing names the series")
            elif len(key) > limit:
                decoded.refuse(row, Reason.KEY_TOO_LARGE, f"{len(key)} bytes, more than {limit}")
            elif not key.isascii() and not _is_utf8(key):
                decoded.refuse(row, Reason.KEY_NOT_UTF8, "the key is not UTF-8")

    def _check_timestamps(self, decoded: Decoded, record_timestamp: Ints) -> None:
        timestamp, sent = decoded.timestamp, np.minimum(record_timestamp, _timestamps.LAST)
        for row in np.flatnonzero(timestamp == _timestamps.INVALID).tolist():
            decoded.refuse(row, Reason.INVALID_TIMESTAMP, "not a time of the years 1 to 9999")
        limit = self._settings.max_future_s
        for row in np.flatnonzero((sent >= 0) & (timestamp > sent + limit * 1000)).tolist():
            decoded.refuse(row, Reason.FUTURE_TIMESTAMP, f"more than {limit:g} s past the record's own")

    def _check_values(self, decoded: Decoded) -> None:
        limit = self._settings.max_abs_value
        for row in np.flatnonzero((np.abs(decoded.value) > limit).any(axis=1)).tolist():
            decoded.refuse(row, Reason.VALUE_OUT_OF_RANGE, f"a value beyond {limit:g}")


def _take(column: Sequence[bytes | None], rows: Sequence[int]) -> list[Any]:
    """The items at `rows`. They are bytes: a row without any was refused before."""
    return list(column) if len(rows) == len(column) else [column[row] for row in rows]


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
