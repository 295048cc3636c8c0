"""Outputs of a worker, for the tests of what counts them."""

from __future__ import annotations

from stream_gru.records.output import OutputRecord


def output(
    offset: int, *, flag: bool = False, level: str = "", series: str = "a", at: int | None = None
) -> OutputRecord:
    return OutputRecord(
        series=series,
        timestamp=offset if at is None else at,
        y=1.0,
        yhat=1.0,
        yhat_lower=0.0,
        yhat_upper=2.0,
        anomaly_score=1.5 if flag else 0.5,
        anomaly_grade=0.0,
        is_anomaly=flag,
        alert=flag,
        alert_score=0.0,
        level=level or ("anomaly" if flag else "normal"),
        forecast=(),
        model="light",
        id=f"my-readings-0-{offset}",
    )
