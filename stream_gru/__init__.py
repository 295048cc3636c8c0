"""Real-time forecasts and anomaly flags for sensor streams.

`Engine` is the whole model side without Kafka or Redis: columns of readings in, columns of forecasts out.
`decode_output` reads what workers publish.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("stream-gru")
except PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0+source"

if TYPE_CHECKING:
    from stream_gru.columns import Level
    from stream_gru.engine.engine import Engine
    from stream_gru.errors import BundleError, DataError, OutputError, SettingsError, StreamGruError
    from stream_gru.records.dead_letters import DeadLetter
    from stream_gru.records.output import ForecastStep, OutputRecord, decode_output
    from stream_gru.settings import Detector, Gaps, Settings

# Where each name is. torch takes a second to import; `stream-gru --help` should not wait for it.
_HOMES = {
    "stream_gru.columns": ("Level",),
    "stream_gru.engine.engine": ("Engine",),
    "stream_gru.errors": ("BundleError", "DataError", "OutputError", "SettingsError", "StreamGruError"),
    "stream_gru.records.dead_letters": ("DeadLetter",),
    "stream_gru.records.output": ("ForecastStep", "OutputRecord", "decode_output"),
    "stream_gru.settings": ("Detector", "Gaps", "Settings"),
}

__all__ = [
    "BundleError",
    "DataError",
    "DeadLetter",
    "Detector",
    "Engine",
    "ForecastStep",
    "Gaps",
    "Level",
    "OutputError",
    "OutputRecord",
    "Settings",
    "SettingsError",
    "StreamGruError",
    "__version__",
    "decode_output",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
