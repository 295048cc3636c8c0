"""A picture of one file's series: value, interval and flags above, the gates if they were recorded, the score below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stream_gru.columns import Bools, Floats, Forecasts
from stream_gru.errors import DataError
from stream_gru.history.files import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Gates = Mapping[str, npt.NDArray[np.float32]]  # by name (N, F, 4): mean over the units, and their quartiles
Times = npt.NDArray[np.datetime64]

_MOST_SERIES = 8  # series of one file that are drawn: those with the most flags


def draw(
    target: Path,
    title: str,
    table: History,
    forecasts: Forecasts,
    features: Sequence[str],
    *,
    gates: Gates | None = None,
    spans: Sequence[tuple[int, int]] = (),
) -> Path:
    """Draw each series and feature of `table` into `target`, a PNG; `spans`, from and to in epoch ms, are labelled
    anomalies. Raises `DataError` where matplotlib is missing."""
    require()
    from matplotlib.figure import Figure

    names, member = np.unique(np.array(table.series), return_inverse=True)
    flags = np.bincount(member, forecasts.is_anomaly, len(names))
    shown = np.sort(np.argsort(-flags, kind="stable")[:_MOST_SERIES])
    panels = [(int(s), f) for s in shown for f in range(len(features))]
    heights = [3.0, *[1.5] * len(gates or {}), 1.0]
    figure = Figure(figsize=(14, 1 + sum(heights) * len(panels)), layout="constrained")
    left_out = f" ({len(names) - len(shown)} more series)" if len(names) > len(shown) else ""
    figure.suptitle(f"{title}{left_out}")
    axes = figure.subplots(len(heights) * len(panels), 1, squeeze=False, height_ratios=heights * len(panels))[:, 0]
    for panel, (series, feature) in enumerate(panels):
        above, *between, below = axes[len(heights) * panel : len(heights) * (panel + 1)]
        rows = np.flatnonzero(member == series)
        rows = rows[np.argsort(table.timestamp[rows], kind="stable")]
        time, here = table.timestamp[rows].astype("datetime64[ms]"), forecasts.take(rows)
        for begin, end in np.array(spans, "datetime64[ms]").reshape(-1, 2):
            if begin <= time[-1] and end >= time[0]:
                above.axvspan(max(begin, time[0]), min(end, time[-1]), color="tab:orange", alpha=0.2, lw=0)
        _value(above, time, here, feature)
        label = " ".join([str(names[series]), features[feature] if len(features) > 1 else ""]).strip()
        if label != title:
            above.set_title(label, loc="left")
        for axis in (above, *between):
            axis.tick_params(labelbottom=False)
        for axis, (name, values) in zip(between, (gates or {}).items(), strict=True):
            axis.sharex(above)
            _gate(axis, time, values[rows, feature], here.is_anomaly)
            axis.set_ylabel(name)
        below.sharex(above)
        below.plot(time, np.clip(here.anomaly_score, 0, 5), color="tab:purple", lw=0.7)
        below.axhline(1, color="tab:red", lw=0.7)
        below.set_ylabel("score")
        below.margins(x=0)
    figure.savefig(target, dpi=80)
    return target


def require() -> None:
    """Raise `DataError` where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError:
        raise DataError("a picture needs matplotlib: pip install 'stream-gru[plot]'") from None


def _value(axes: Axes, time: Times, forecasts: Forecasts, feature: int) -> None:
    y, flag, alert = forecasts.y[:, feature], forecasts.is_anomaly, forecasts.alert
    low, high = forecasts.lower[:, feature], forecasts.upper[:, feature]
    axes.fill_between(time, low, high, color="tab:blue", alpha=0.25, lw=0, label="90% interval")
    axes.plot(time, forecasts.yhat[:, feature], color="tab:blue", lw=0.7, label="forecast")
    axes.plot(time, y, color="black", lw=0.7, label="value")
    axes.plot(time[flag], y[flag], "o", color="tab:red", ms=4, label="anomaly")
    axes.plot(time[alert], y[alert], "v", color="tab:red", ms=9, label="alert")
    finite: Floats = y[np.isfinite(y)]
    if len(finite):
        room = 0.15 * (np.ptp(finite) or 1.0)  # the interval may be far wider than the values for a while
        axes.set_ylim(finite.min() - room, finite.max() + room)
    axes.legend(loc="upper left", ncols=5, fontsize="small")


def _gate(axes: Axes, time: Times, values: npt.NDArray[np.float32], flag: Bools) -> None:
    mean, low, median, high = values.T[:4]
    axes.fill_between(time, low, high, color="tab:green", alpha=0.2, lw=0, label="half of the units")
    axes.plot(time, median, color="tab:green", lw=0.7, label="median")
    axes.plot(time, mean, color="black", lw=0.7, label="mean")
    across = axes.get_xaxis_transform()
    axes.fill_between(time, 0, 1, where=flag, step="mid", transform=across, color="tab:red", alpha=0.15, lw=0)
    axes.set_ylim(0, 1)
    axes.legend(loc="upper left", ncols=3, fontsize="small")
