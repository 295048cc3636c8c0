"""Real-time forecasts and anomaly flags for sensor streams.

`Engine` is the whole model side without Kafka or Redis: columns of readings in, columns of forecasts out.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("stream-gru")
except PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0+source"

if TYPE_CHECKING:
    from stream_gru.engine.engine import Engine

__all__ = ["Engine", "__version__"]


def __getattr__(name: str) -> Any:
    # torch takes a second to import; `stream-gru --help` should not wait for it.
    if name == "Engine":
        from stream_gru.engine.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
