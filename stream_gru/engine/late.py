"""Readings that come after their time: each is held against the forecast that stood at its time. Pure, on the host.

A row keeps its last `PAST` one-step forecasts with the times of the readings that they were made at, in a ring. What
stood at a time is the one made at the last reading up to it: just what the reading would have been held against, had it
come in time. Nothing that came after its time counts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_gru.columns import Bools, Floats, Forecasts, Ints, Level, Readings
from stream_gru.engine.row import NEVER, PAST, Structured, words
from stream_gru.settings import Detector

LIMIT = 4.0  # half intervals from the median, from which on a late reading is anomalous: 6.6 deviations of a normal
_LARGEST = 1e6
_NOISE, _TINY = 1e-12, 1e-30  # of |y|, and at all: what lies below is rounding


def keep(past: Structured, slots: Ints, heads: Structured, stepped: Bools, forecast: Floats) -> None:
    """Give the rings of distinct `slots` (N,) the forecasts (3, N, F), median, lower, upper, that were made at readings
    that moved the features `stepped` (N, F), and count them in their `heads`, whose times are the readings'.

    `past` are all rings (rows, PAST). Where a feature did not move, what stood before stands still.
    """
    if not stepped.all():
        some = np.flatnonzero(stepped.any(1))
        slots, stepped, forecast = slots[some], stepped[some], forecast[:, some]
        made, timestamp = heads["made"][some], heads["timestamp"][some]
        stood = np.where(made > 0, _forecast(past[slots, (made - 1) % PAST]).transpose(0, 2, 1), np.nan)
        forecast = np.where(stepped, forecast, stood.transpose(0, 2, 1))
        heads["made"][some] += 1
    else:
        made, timestamp = heads["made"].copy(), heads["timestamp"]
        heads["made"] += 1
    entry = np.empty(len(slots), past.dtype)
    entry["time"], entry["yhat"] = timestamp, forecast[0]
    # Float64 for the median keeps the precision of counters; its distances to the bounds don't need that.
    entry["below"], entry["above"] = forecast[0] - forecast[1], forecast[2] - forecast[0]
    words(past)[slots * PAST + made % PAST] = words(entry)


def standing(past: Structured, made: Ints, timestamp: Ints) -> Floats:
    """Rings (N, PAST), how many forecasts each was given (N,), and a time each -> the forecasts that stood then,
    (3, N, F): median, lower, upper. NaN where the ring does not reach."""
    newest_first = (made[:, None] - 1 - np.arange(PAST)) % PAST
    past = np.take_along_axis(past, newest_first, 1)
    stood = (past["time"] != NEVER) & (past["time"] <= timestamp[:, None])
    forecast = _forecast(past[np.arange(len(past)), stood.argmax(1)])
    forecast[:, ~stood.any(1)] = np.nan
    return forecast


def score(y: Floats, forecast: Floats) -> Floats:
    """How far readings (N, F) lie outside of forecasts (3, N, F): of the feature that is farthest out, the distance to
    the median over `LIMIT` times the interval's half on that side, (N,). NaN where nothing can be said."""
    yhat, lower, upper = forecast
    half = np.where(y > yhat, upper - yhat, yhat - lower) + np.abs(y) * _NOISE + _TINY
    scores: npt.NDArray[np.float64] = np.fmax.reduce(np.abs(y - yhat) / (LIMIT * half), axis=1)
    return np.minimum(scores, _LARGEST)


def judge(forecasts: Forecasts, readings: Readings, heads: Structured, past: Structured, settings: Detector) -> None:
    """Write into the `forecasts` of N readings of distinct series what is said of the late ones. Never an alert."""
    rows = np.flatnonzero(forecasts.level == Level.LATE)
    if not len(rows):
        return
    stood = standing(past[readings.slot[rows]], heads["made"][rows], readings.timestamp[rows])
    forecasts.yhat[rows], forecasts.lower[rows], forecasts.upper[rows] = stood
    old_enough = heads["seen"][rows] >= settings.min_n_samples_seen
    found = score(np.where(old_enough, forecasts.y[rows], np.nan), stood)
    forecasts.anomaly_score[rows] = found
    forecasts.anomaly_grade[rows] = 1 - 1 / np.maximum(found, 1)
    forecasts.is_anomaly[rows] = found > 1


def _forecast(entry: Structured) -> Floats:
    """Entries of a ring (N,) -> (3, N, F)."""
    return np.stack([entry["yhat"], entry["yhat"] - entry["below"], entry["yhat"] + entry["above"]])
