"""Records of the anomalies topic, for the tests of what reads them."""

from __future__ import annotations

from typing import Any

import msgspec

from stream_gru.alerts.runs import Place
from stream_gru.records.output import OutputRecord


def output(
    offset: int, series: str = "pump", *, anomaly: bool = True, alert: bool = False, **other: Any
) -> OutputRecord:
    """The output of the reading at `offset` of readings-0, one reading a second."""
    values: dict[str, Any] = {
        "id": f"readings-0-{offset}",
        "series": series,
        "timestamp": offset * 1000,
        "is_anomaly": anomaly,
        "alert": alert,
        "anomaly_score": 1.5 if anomaly else 0.1,
        "anomaly_grade": 0.0,
        "alert_score": 1.5 if alert else 0.1,
        "level": "anomaly" if anomaly else "normal",
        "forecast": (),
        "y": float(offset),
        "yhat": 0.0,
        "yhat_lower": -1.0,
        "yhat_upper": 1.0,
        "model": "gru",
        **other,
    }
    return OutputRecord(**values)


def payload(offset: int, series: str = "pump", **other: Any) -> bytes:
    """The same as the topic holds it."""
    return msgspec.json.encode(output(offset, series, **other))


def entry(
    record: OutputRecord, position: int | None = None, seen: int | None = None
) -> tuple[OutputRecord, Place, int, int]:
    """What `Ledger.take` takes: by default each record stands at its reading's offset, and at its time."""
    place = Place.of(record.id)
    at = place.offset if position is None else position
    return record, place, record.timestamp if seen is None else seen, at
