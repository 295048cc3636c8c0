"""One verdict on a reading from what the detector says of each of its features, and whether someone should be told.

An alert is told once. For a while after it only a clearly larger surprise is news (hold), and the more alerts a series
has given lately, the less its surprises count (habituation). What has to be remembered for this is a few numbers in the
head of the row; they are computed on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_gru.columns import DAY_MS, Bools, Floats, Ints
from stream_gru.detection.channels import CHANNELS
from stream_gru.detection.detector import POWER

Head = npt.NDArray[Any]
SLOWEST_MS = 300_000  # between readings: what comes less often may give as many alerts a reading, not more
# Hold and habituation go back to a search on 38 series of NAB; there 0.7 or 1.3 times any of these moved the score
# on all 58 series by less than 3 points of 100.
_HOLD_READINGS = 75  # after something was told, in which only a clearly larger surprise is
_NEWS_RATIO = 1.5  # how many times as large that must be
_HABIT_PER_ALERT = 0.15  # a surprise is divided by 1 + this for each alert before it that is not forgotten
_HABIT_READINGS = 2500  # after which such an alert counts e times less
# The surprise that counts as a whole alert, some two channels at new records: 0.15 was chosen for a detector whose
# channels weigh 45 together.
_WHOLE_ALERT = 0.15 * len(CHANNELS) / 45
# These were set by hand.
_ANOMALOUS_DAYS = 0.01  # that a series may be called anomalous for each alert it may give
_YOUNG_READINGS = 200.0  # seen, at which a surprise must be twice as large: in a short past everything is a record


class Limits(NamedTuple):
    """What a threshold costs: how often series in which all is well exceed it. `stream-gru calibrate` measures this."""

    rates: tuple[float, ...]  # alerts a reading, falling
    surprise: tuple[float, ...]  # its threshold at each, rising
    shares: tuple[float, ...]  # of the readings that are called anomalous, falling
    deviation: tuple[float, ...]  # its threshold at each, rising

    def at(self, rate: Floats, share: float) -> tuple[Floats, float]:
        """The thresholds of surprise that give alerts at each `rate` (B,), a reading, and that of deviation which a
        `share` of the readings exceeds.

        Beyond the ends of a table its last entry holds; only for alerts that are rarer than could be measured the
        threshold of surprise goes on rising.
        """
        x, y = -np.log(self.rates), np.log(self.surprise)
        rarer = np.maximum(-np.log(rate) - x[-1], 0)
        surprise = np.interp(-np.log(rate), x, y) + rarer * (y[-1] - y[-2]) / (x[-1] - x[-2])
        return np.exp(surprise), float(np.interp(-np.log(share), -np.log(self.shares), self.deviation))


DEFAULT = Limits(  # of `light`; others are not far from it
    (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6),
    (0.0031, 0.0225, 0.0431, 0.0728, 0.1112, 0.1729, 0.2643, 0.429, 0.7137),
    (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001),
    (2.659, 3.344, 4.008, 4.944, 6.278, 9.218, 11.464),
)


class Verdict(NamedTuple):
    """One for each of B readings."""

    score: Floats
    grade: Floats
    is_anomaly: Bools
    alert_score: Floats
    alert: Bools
    closes: Bools
    attribution: Floats  # (B, F) share of each feature in the score, NaN where there is no anomaly
    head: Head  # what the head of the row remembers of it


class Measured(NamedTuple):
    """What the detector measured of B readings of F features."""

    surprise: Floats  # (B, F)
    deviation: Floats  # (B, F)
    judged: Bools  # (B, F) whether these two count: the feature is there, and old enough
    interval: Floats  # (B,) usual ms between two readings
    seen: Ints  # (B,) how many there were before


def judge(found: Measured, head: Head, limits: Limits, per_day: float) -> Verdict:
    """Verdicts on B readings. `head` (B,) is what the rows remember (`row.ALARM`), `per_day` how many alerts a series
    may give while all is well."""
    head = head.copy()
    each_day = per_day / found.judged.shape[1]  # of a feature
    interval = np.clip(found.interval, 1, SLOWEST_MS)
    least, farthest = limits.at(each_day * interval / DAY_MS, each_day * _ANOMALOUS_DAYS)
    least *= 1 + (_YOUNG_READINGS / np.maximum(found.seen, 1)) ** 2

    surprise, deviation = np.where(found.judged, (found.surprise, found.deviation), 0)
    told = _tell(head, _norm(surprise), np.logical_or.reduce(found.judged, axis=1)) / least
    away = _norm(deviation) / farthest
    score = np.maximum(told, away)
    flag, before = score > 1, head["open"] > 0
    head["open"] = flag
    share = np.where((told > away)[:, None], surprise, deviation) ** POWER
    share[~flag] = np.nan
    share /= share.sum(axis=1, keepdims=True)
    return Verdict(score, 1 - 1 / np.maximum(score, 1), flag, told, told > 1, ~flag & before, share, head)


def _tell(head: Head, surprise: Floats, judged: Bools) -> Floats:
    """The part of the surprise (B,) that is news, 0 where there is none; `head` moves on."""
    head["since"] += head["since"] > 0
    head["habit"] *= np.where(judged, np.exp(-1 / _HABIT_READINGS), 1)
    over = (head["since"] == 0) | (head["since"] - 1 > _HOLD_READINGS)
    news = (surprise > 0) & (over | (surprise > _NEWS_RATIO * head["told"]))
    told: Floats = np.where(news, surprise / (1 + _HABIT_PER_ALERT * head["habit"]), 0)
    head["habit"] += np.where(news, np.minimum(surprise / _WHOLE_ALERT, 1), 0)
    head["told"] = np.where(news, surprise, head["told"])
    head["since"] = np.where(news, 1, head["since"])
    return told


def _norm(each: Floats) -> Floats:
    """(B, F) -> (B,)"""
    if each.shape[1] == 1:
        return each[:, 0]
    norm: Floats = np.linalg.norm(each, POWER, axis=1)
    return norm
