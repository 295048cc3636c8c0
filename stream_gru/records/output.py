"""The output record as other programs see it: what the forecasts and anomalies topics hold.

    record = decode_output(message.value)
    record.series, record.timestamp, record.y, record.yhat, record.level

The field names are the names in the record. With several features `y`, `yhat` and the bounds are objects by the
feature's name. None stands for what does not exist: no forecast yet, a missing value, a series too young to be judged.

The struct is the one list of the output's columns; each field's type carries the note that all writers go by.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from stream_gru.columns import notes
from stream_gru.errors import DataError
from stream_gru.records.schema import TYPES, Column, ColumnKind, DescribedColumn, Presence

Quantity = float | dict[str, float | None] | None  # a number; by feature name where there are several
Shares = dict[str, float | None]  # by feature name


class ForecastStep(msgspec.Struct, gc=False):
    """The forecast made at a reading for the one that comes `step` readings later, with its central 90% interval.

    Behind `step` the fields are in the order of the third axis of `columns.Forecasts.ahead`.
    """

    step: Annotated[int, Column(ColumnKind.STEP, "How many readings ahead; 1 is the next one.")]
    yhat: Annotated[Quantity, Column(ColumnKind.QUANTITY, "The median forecast, in the unit of the reading.")]
    yhat_lower: Annotated[
        Quantity, Column(ColumnKind.QUANTITY, "Lower end of its central 90% interval, in the unit of the reading.")
    ]
    yhat_upper: Annotated[
        Quantity, Column(ColumnKind.QUANTITY, "Upper end of its central 90% interval, in the unit of the reading.")
    ]


class OutputRecord(msgspec.Struct, gc=False):
    """What is said of one reading."""

    series: Annotated[str, Column(ColumnKind.TEXT, "The name of the series; it is the record key as well.")]
    timestamp: Annotated[int, Column(ColumnKind.TIME, "The time of the reading, in milliseconds since 1970 (UTC).")]
    y: Annotated[Quantity, Column(ColumnKind.READING, "The reading itself; null if it had no value.")]
    yhat: Annotated[
        Quantity,
        Column(
            ColumnKind.QUANTITY,
            "The median forecast that was made for this reading at the one before it, in the unit of the reading; null "
            "if there was none. Of a late reading the forecast of its time.",
        ),
    ]
    yhat_lower: Annotated[
        Quantity,
        Column(
            ColumnKind.QUANTITY, "Lower end of the central 90% interval of `yhat`, in the unit of the reading.", "lower"
        ),
    ]
    yhat_upper: Annotated[
        Quantity,
        Column(
            ColumnKind.QUANTITY, "Upper end of the central 90% interval of `yhat`, in the unit of the reading.", "upper"
        ),
    ]
    anomaly_score: Annotated[
        float | None,
        Column(
            ColumnKind.SCORE,
            "How anomalous the series is now: 0 to 1 is normal, above 1 anomalous; no unit. Null if the reading was "
            "not judged: it had no value, or its series is too young.",
        ),
    ]
    anomaly_grade: Annotated[
        float | None, Column(ColumnKind.NUMBER, "0 while `anomaly_score` is at most 1, else 1 - 1 / `anomaly_score`.")
    ]
    is_anomaly: Annotated[bool, Column(ColumnKind.FLAG, "Whether `anomaly_score` is above 1.")]
    alert: Annotated[bool, Column(ColumnKind.FLAG, "Whether someone should be told now: `alert_score` is above 1.")]
    alert_score: Annotated[
        float | None,
        Column(
            ColumnKind.SCORE,
            "How surprising this reading is beyond what was told before: 0 if nothing is news, above 1 if `alert`; no "
            "unit. Null if the reading was not judged, or is late.",
        ),
    ]
    level: Annotated[
        str,
        Column(
            ColumnKind.LEVEL,
            "`warmup` (the series is too young to be judged), `normal`, `anomaly`, `missing` (the reading had no "
            "value) or `late` (it is older than the last reading of its series).",
        ),
    ]
    forecast: Annotated[
        tuple[ForecastStep, ...],
        Column(
            ColumnKind.STEPS,
            "The forecasts made at this reading, one for each step ahead, the next one first.",
            "ahead",
        ),
    ]
    model: Annotated[str, Column(ColumnKind.TEXT, "The name of the model and the start of its digest.")]
    id: Annotated[
        str,
        Column(
            ColumnKind.TEXT,
            "topic-partition-offset of the reading; in a backtest file-row, of an Engine its count of readings. "
            "The same after a replay.",
        ),
    ]
    yhat_spread: Annotated[
        Quantity | msgspec.UnsetType,
        Column(
            ColumnKind.QUANTITY,
            "How far the members of the ensemble were apart on `yhat`: a standard deviation, in the unit of the "
            "reading.",
            "spread",
            Presence.ENSEMBLE,
        ),
    ] = msgspec.UNSET
    imputed: Annotated[
        int | msgspec.UnsetType,
        Column(
            ColumnKind.COUNT,
            "How many steps were filled in with the model's own forecasts: readings missed before this one, or its "
            "null value.",
            when=Presence.FILLED,
        ),
    ] = msgspec.UNSET
    relevant_attribution: Annotated[
        Shares | msgspec.UnsetType,
        Column(
            ColumnKind.QUANTITY, "The share of each feature in the score; together they are 1.", when=Presence.EXPLAINED
        ),
    ] = msgspec.UNSET
    expected_values: Annotated[
        Shares | msgspec.UnsetType,
        Column(
            ColumnKind.QUANTITY,
            "What was expected of each feature before the anomaly could show in the forecasts, in its unit.",
            when=Presence.EXPLAINED,
        ),
    ] = msgspec.UNSET


COLUMNS = notes(OutputRecord, Column)
STEP_COLUMNS = notes(ForecastStep, Column)
INTERVAL = tuple(name for name in STEP_COLUMNS if name != "step")
"""The parts of a forecast, in the order of the third axis of `columns.Forecasts.ahead`."""

_DECODER = msgspec.json.Decoder(OutputRecord)


def decode_output(payload: bytes) -> OutputRecord:
    """Read one output record of JSON, passing over fields it does not know. Raises `DataError` for other bytes."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"this is no output record of stream_gru: {error}") from None


def describe() -> Iterator[DescribedColumn]:
    """The columns in the order of the record, in words; those of a forecast step behind `forecast`."""
    for name, column in COLUMNS.items():
        yield DescribedColumn(name, TYPES[column.kind], column.when.value, column.description)
        if column.kind is ColumnKind.STEPS:
            for inner, part in STEP_COLUMNS.items():
                yield DescribedColumn(f"{name}[].{inner}", TYPES[part.kind], part.when.value, part.description)
