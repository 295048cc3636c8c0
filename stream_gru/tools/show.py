"""Records as rows of a table for people. What comes from outside never reaches the terminal as control characters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

Payload = Mapping[str, Any]

# Column -> (width, how it is read off a payload)
Columns = dict[str, tuple[int, Callable[[Payload], str]]]


def plain(text: object) -> str:
    """`text` with everything that is not printable escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def number(value: object) -> str:
    """Six significant digits; features by name where there are several; a dash for what does not exist."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return " ".join(f"{plain(name)}={number(one)}" for name, one in value.items())
    return f"{value:.6g}" if isinstance(value, int | float) else plain(value)


def interval(low: object, high: object) -> str:
    """low … high, feature by feature."""
    if isinstance(low, Mapping) and isinstance(high, Mapping):
        return " ".join(f"{plain(name)}={interval(low[name], high.get(name))}" for name in low)
    return "–" if low is None and high is None else f"{number(low)} … {number(high)}"


def moment(milliseconds: object) -> str:
    """Epoch ms as UTC, ISO 8601 to the second."""
    if not isinstance(milliseconds, int):
        return "–"
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # past the year 9999
        return str(milliseconds)


def _bounds(payload: Payload) -> str:
    given = payload.get("interval")
    if isinstance(given, Mapping):
        return " ".join(f"{plain(name)}={interval(*pair)}" for name, pair in given.items())
    return interval(*(given or (None, None)))


def _original(payload: Payload) -> str:
    value = payload.get("value") or {}
    return plain(value.get("data", "–")) + (" …" if value.get("truncated") else "")


_OUTPUT: Columns = {
    "time (UTC)": (19, lambda p: moment(p.get("timestamp"))),
    "series": (32, lambda p: plain(p.get("series", "–"))),
    "level": (8, lambda p: plain(p.get("level", "–"))),
    "actual": (12, lambda p: number(p.get("y"))),
    "expected": (12, lambda p: number(p.get("yhat"))),
    "interval": (23, lambda p: interval(p.get("yhat_lower"), p.get("yhat_upper"))),
    "score": (9, lambda p: number(p.get("anomaly_score"))),
}
COLUMNS: dict[str, Columns] = {
    "forecasts": _OUTPUT,
    "anomalies": _OUTPUT,
    "alerts": {
        "start (UTC)": (19, lambda p: moment(p.get("start"))),
        "end (UTC)": (19, lambda p: moment(p.get("end"))),
        "status": (9, lambda p: plain(p.get("status", "–"))),
        "series": (32, lambda p: plain(p.get("series", "–"))),
        "actual": (12, lambda p: number(p.get("actual"))),
        "expected": (12, lambda p: number(p.get("expected"))),
        "interval": (23, _bounds),
        "score": (9, lambda p: number(p.get("score"))),
    },
    "dead-letters": {
        "sent (UTC)": (19, lambda p: moment(p.get("timestamp"))),
        "reason": (20, lambda p: plain(p.get("reason", "–"))),
        "id": (32, lambda p: plain(p.get("id", "–"))),
        "original": (60, _original),
    },
}


def row(kind: str, payload: Payload) -> list[str]:
    """The cells of `payload`, a record of `kind`."""
    return [read(payload) for _, read in COLUMNS[kind].values()]
