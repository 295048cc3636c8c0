"""Record bytes <-> columns. One file a codec; `load` finds it by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stream_gru.batch import Floats, Forecasts, Ints
from stream_gru.errors import SettingsError
from stream_gru.settings import Input


@dataclass(slots=True)
class Decoded:
    """N payloads as columns. Where `reason` is not None the row is bad and its other columns mean nothing."""

    series: list[bytes]  # N series keys, UTF-8
    timestamp: Ints  # (N,) epoch ms
    value: Floats  # (N, F), NaN = missing
    bad: dict[int, str]  # row -> why it is a dead letter


class Codec(Protocol):
    """Stateless but for its settings; the same bytes always give the same columns."""

    def __init__(self, settings: Input, horizons: Sequence[int]) -> None: ...

    def decode(self, keys: Sequence[bytes | None], payloads: Sequence[bytes | None], record_timestamp: Ints) -> Decoded:
        """Decode N records; `record_timestamp` is Kafka's own, epoch ms. Never raises for what a payload holds."""
        ...

    def encode(
        self, series: Sequence[bytes], timestamp: Ints, ids: Sequence[str], model: str, forecasts: Forecasts
    ) -> list[bytes]:
        """Encode N output records."""
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
