"""Forecasts as a polars table with the columns of the output record, for notebooks and files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from stream_gru.columns import Floats, Forecasts, Ints, Level
from stream_gru.engine.row import NEVER, Structured

_LEVELS = [level.name.lower() for level in Level]


def frame(
    series: Sequence[str],
    timestamp: Ints,
    ids: Sequence[str],
    forecasts: Forecasts,
    *,
    features: Sequence[str],
    steps: Sequence[int],
    model: str,
) -> pl.DataFrame:
    """N readings and their forecasts as a table of N rows, names and types as in `records.OutputRecord`.

    With several features `y`, `yhat` and the bounds are structs by the feature's name, and there are columns with what
    each one has to do with an anomaly. What doesn't exist is null.
    """
    ahead = [
        pl.struct(
            pl.lit(step, pl.Int64).alias("step"),
            _quantity("yhat", forecasts.ahead[:, k, 0], features),
            _quantity("yhat_lower", forecasts.ahead[:, k, 1], features),
            _quantity("yhat_upper", forecasts.ahead[:, k, 2], features),
        )
        for k, step in enumerate(steps)
    ]
    n = len(forecasts)
    explained = [
        _quantity("relevant_attribution", forecasts.relevant_attribution, features),
        _quantity("expected_values", forecasts.expected_values, features),
    ]
    return pl.DataFrame({"series": series, "timestamp": timestamp}).select(
        pl.col("series").cast(pl.String),
        pl.col("timestamp").cast(pl.Int64),
        _quantity("y", forecasts.y, features),
        _quantity("yhat", forecasts.yhat, features),
        _quantity("yhat_lower", forecasts.lower, features),
        _quantity("yhat_upper", forecasts.upper, features),
        _number("anomaly_score", forecasts.anomaly_score),
        _number("anomaly_grade", forecasts.anomaly_grade),
        pl.lit(pl.Series("is_anomaly", forecasts.is_anomaly)),
        pl.lit(pl.Series("alert", forecasts.alert)),
        _number("alert_score", forecasts.alert_score),
        pl.lit(pl.Series("level", np.array(_LEVELS)[forecasts.level] if n else [], pl.String)),
        pl.concat_list(ahead).alias("forecast"),
        pl.lit(model).alias("model"),
        pl.lit(pl.Series("id", ids, pl.String)),
        _quantity("yhat_spread", forecasts.spread, features),
        pl.lit(pl.Series("imputed", forecasts.imputed)),
        *(explained if len(features) > 1 else ()),
    )


def outlook(
    series: Sequence[str], heads: Structured, steps: Sequence[int], ahead: Floats, features: Sequence[str]
) -> pl.DataFrame:
    """Forecasts (S, 3, N, F) of N series from where they are, a row for each series and step.

    The time of a step is the last one's plus so many usual intervals, null where none is known.
    """
    n, k = len(series), len(steps)
    step = np.tile(np.asarray(steps, np.int64), n)
    last, interval = (np.repeat(heads[name], k) for name in ("timestamp", "interval"))
    by_row = ahead.transpose(1, 2, 0, 3).reshape(3, n * k, len(features))
    known = (interval > 0) & (last != NEVER)
    timestamp = np.where(known, last, 0) + np.rint(step * interval).astype(np.int64)
    return pl.DataFrame({"series": np.repeat(np.array(series, object), k).tolist(), "step": step}).select(
        pl.col("series").cast(pl.String),
        pl.col("step"),
        pl.when(pl.lit(pl.Series(known))).then(pl.lit(pl.Series(timestamp))).alias("timestamp"),
        _quantity("yhat", by_row[0], features),
        _quantity("yhat_lower", by_row[1], features),
        _quantity("yhat_upper", by_row[2], features),
    )


def _number(name: str, column: Floats) -> pl.Expr:
    return pl.lit(pl.Series(name, np.ascontiguousarray(column), nan_to_null=True))


def _quantity(name: str, column: Floats, features: Sequence[str]) -> pl.Expr:
    """(N, F) -> a number, or a struct by feature name where there are several."""
    if len(features) == 1:
        return _number(name, column[:, 0])
    return pl.struct(_number(feature, column[:, f]) for f, feature in enumerate(features)).alias(name)
