"""Record bytes <-> columns. One file a codec; `load` finds it by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stream_gru.columns import Floats, Forecasts, Ints
from stream_gru.errors import SettingsError
from stream_gru.records.dead_letters import Reason
from stream_gru.records.output import OutputRecord
from stream_gru.settings import Input


@dataclass(slots=True)
class Decoded:
    """N payloads as columns. A row in `bad` is a dead letter: its series is empty, its other columns mean nothing."""

    series: list[bytes]  # N series keys, UTF-8
    timestamp: Ints  # (N,) epoch ms
    value: Floats  # (N, F + C), F features and C covariates, NaN = missing
    bad: dict[int, Reason] = field(default_factory=dict)  # row -> why it is a dead letter
    detail: dict[int, str] = field(default_factory=dict)  # row of `bad` -> the same in words, nothing of the payload

    def refuse(self, row: int, reason: Reason, detail: str) -> None:
        """Make `row` a dead letter. The first reason stays."""
        if row not in self.bad:
            self.bad[row], self.detail[row] = reason, detail

    def good(self, rows: Sequence[int]) -> Sequence[int]:
        """Those of `rows` that are no dead letters, in the same order."""
        return [row for row in rows if row not in self.bad] if self.bad else rows


class Codec(Protocol):
    """Stateless but for its settings; the same bytes always give the same columns."""

    def __init__(self, settings: Input, horizons: Sequence[int]) -> None: ...

    def decode(self, keys: Sequence[bytes | None], payloads: Sequence[bytes | None], record_timestamp: Ints) -> Decoded:
        """Decode N records. Never raises for what one holds, and no record changes what becomes of another.

        `record_timestamp` (N,) is Kafka's own, epoch ms; negative: the record has none.
        """
        ...

    def encode(
        self, series: Sequence[bytes], timestamp: Ints, ids: Sequence[str], model: str, forecasts: Forecasts
    ) -> list[bytes]:
        """Encode N output records. NaN becomes null; what is not `y` may be rounded, by 1e-8 of itself at most."""
        ...

    def decode_output(self, payload: bytes) -> OutputRecord:
        """Read back a record of `encode`. Raises `DataError` for bytes that are none."""
        ...

    def encode_readings(self, series: Sequence[bytes], timestamp: Ints, value: Floats) -> list[bytes]:
        """Payloads that `decode` reads as these columns, for tools that make readings; the record key is the series.

        `value` is (N, F + C), or (N, F) where no covariate is known.
        Raises `DataError` for a series that the settings can't spell.
        """
        ...


def names() -> list[str]:
    """Every codec there is."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(settings: Input, horizons: Sequence[int]) -> Codec:
    """The codec that the settings name. `horizons` are the farther steps of the forecasts to encode."""
    if settings.codec not in names():
        raise SettingsError(f"input.codec: there is no codec {settings.codec!r}; there are {', '.join(names())}")
    codec: Codec = importlib.import_module(f"{__name__}.{settings.codec}").Codec(settings, horizons)
    return codec


__all__ = ["Codec", "Decoded", "load", "names"]
