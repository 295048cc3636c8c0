"""A picture of one file's series: value, interval and flags above, the score below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stream_gru.batch import Forecasts
from stream_gru.errors import DataError
from stream_gru.tools.history import History

_MOST = 8  # series of one file that are drawn: those with the most flags


def draw(target: Path, title: str, table: History, forecasts: Forecasts, features: Sequence[str]) -> Path:
    """Draw each series and feature of `table` into `target`, a PNG. Raises `DataError` where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DataError("--plot needs matplotlib: pip install 'stream-gru[plot]'") from None

    names, member = np.unique(np.array(table.series), return_inverse=True)
    flags = np.bincount(member, forecasts.is_anomaly, len(names))
    shown = np.sort(np.argsort(-flags, kind="stable")[:_MOST])
    panels = [(int(s), f) for s in shown for f in range(len(features))]
    figure = Figure(figsize=(14, 1 + 4 * len(panels)), layout="constrained")
    left_out = f" ({len(names) - len(shown)} more series)" if len(names) > len(shown) else ""
    figure.suptitle(f"{title}{left_out}")
    axes = figure.subplots(2 * len(panels), 1, squeeze=False, height_ratios=[3, 1] * len(panels))[:, 0]
    for panel, (series, feature) in enumerate(panels):
        above, below = axes[2 * panel : 2 * panel + 2]
        rows = np.flatnonzero(member == series)
        rows = rows[np.argsort(table.timestamp[rows], kind="stable")]
        time = table.timestamp[rows].astype("datetime64[ms]")
        y, flag = table.value[rows, feature], forecasts.is_anomaly[rows]
        low, high = forecasts.lower[rows, feature], forecasts.upper[rows, feature]
        above.fill_between(time, low, high, color="tab:blue", alpha=0.25, lw=0, label="90% interval")
        above.plot(time, y, color="black", lw=0.7, label="value")
        above.plot(time[flag], y[flag], "o", color="tab:red", ms=4, label="anomaly")
        above.plot(time[forecasts.alert[rows]], y[forecasts.alert[rows]], "v", color="tab:red", ms=9, label="alert")
        finite = y[np.isfinite(y)]
        if len(finite):
            room = 0.15 * (np.ptp(finite) or 1.0)  # the interval may be far wider than the values for a while
            above.set_ylim(finite.min() - room, finite.max() + room)
        above.set_title(" ".join([str(names[series]), features[feature] if len(features) > 1 else ""]), loc="left")
        above.legend(loc="upper left", ncols=4, fontsize="small")
        below.sharex(above)
        below.plot(time, np.clip(forecasts.anomaly_score[rows], 0, 5), color="tab:purple", lw=0.7)
        below.axhline(1, color="tab:red", lw=0.7)
        below.set_ylabel("score")
    figure.savefig(target, dpi=80)
    return target
