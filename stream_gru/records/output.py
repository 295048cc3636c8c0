"""The output record as other programs see it: what the forecasts and anomalies topics hold.

    record = decode_output(message.value)
    record.series, record.timestamp, record.y, record.yhat, record.level

The field names are the names in the record. With several features `y`, `yhat` and the bounds are objects by the
feature's name. None stands for what does not exist: no forecast yet, a missing value, a series too young to be judged.
"""

from __future__ import annotations

import msgspec

from stream_gru.errors import DataError

Quantity = float | dict[str, float | None] | None  # a number; by feature name where there are several


class ForecastStep(msgspec.Struct, gc=False):
    """The forecast made at a reading for the one that comes `step` readings later, with its central 90% interval."""

    step: int
    yhat: Quantity
    yhat_lower: Quantity
    yhat_upper: Quantity


class OutputRecord(msgspec.Struct, gc=False):
    """What is said of one reading."""

    series: str
    timestamp: int  # epoch ms
    y: Quantity  # the reading itself
    yhat: Quantity  # the one-step forecast that had been made for this reading, and its central 90% interval
    yhat_lower: Quantity
    yhat_upper: Quantity
    anomaly_score: float | None  # 0-1 normal, above 1 anomalous: how the series is now
    anomaly_grade: float | None  # 0-1
    is_anomaly: bool
    alert: bool  # someone should be told now
    alert_score: float | None  # above 1 exactly when `alert`
    level: str  # warmup, normal, anomaly, missing or late
    forecast: tuple[ForecastStep, ...]  # from here on
    model: str
    id: str  # topic-partition-offset of the reading; in a backtest file-row
    # How far the members of an ensemble were apart on yhat, a standard deviation; only where there is one.
    yhat_spread: Quantity | msgspec.UnsetType = msgspec.UNSET
    # Steps filled in with the model's own forecasts, where any: readings missed before this one, or its null value.
    imputed: int | msgspec.UnsetType = msgspec.UNSET
    # With several features, where is_anomaly: each one's share in the score, 1 together, and what was expected of it
    # before the anomaly could show in the forecasts.
    relevant_attribution: dict[str, float | None] | msgspec.UnsetType = msgspec.UNSET
    expected_values: dict[str, float | None] | msgspec.UnsetType = msgspec.UNSET


_DECODER = msgspec.json.Decoder(OutputRecord)


def decode_output(payload: bytes) -> OutputRecord:
    """Read one output record of JSON, passing over fields it does not know. Raises `DataError` for other bytes."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"this is no output record of stream_gru: {error}") from None
