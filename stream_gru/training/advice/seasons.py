"""What repeats in a series: its periods, and how much of the variance each explains."""

from __future__ import annotations

import numpy as np

from stream_gru.columns import DAY_MS, WEEK_MS, Floats

_LEAST_CYCLES = 3  # a period must come so often to be told from chance
_LEAST_SHARE = 0.1  # of the variance that a period must explain,
_FEW_CYCLES = 1.5  # or this by the number of cycles: a few cycles of a random walk resemble each other by chance
_FIRST_ENOUGH, _SECOND_ENOUGH = 0.3, 0.5  # of the best explanation: a shorter period that gives so much is taken
_CANDIDATES = 5  # of each kind


def periods(value: Floats, step_ms: float) -> tuple[int | None, float, int | None, float]:
    """The period of values on a beat and the share of variance that it explains; the same for a longer one in the rest.

    Candidates are the peaks of the autocorrelation and of the spectrum, halves, thirds and quarters of them, days and
    weeks; what decides is how well the other cycles foretell each (`explained`). The shortest that explains a fair part
    of what the best one does comes first: a day before the week that is made of days.
    """
    first, share, rest = _best(value, step_ms, 2, _FIRST_ENOUGH)
    if first is None:
        return None, 0.0, None, 0.0
    second, share_of_rest, _ = _best(rest, step_ms, 2 * first, _SECOND_ENOUGH)
    return first, share, second, share_of_rest


def _best(value: Floats, step_ms: float, shortest: int, enough: float) -> tuple[int | None, float, Floats]:
    """The period from `shortest` on, what it explains, and the values without it."""
    limit = len(value) // _LEAST_CYCLES
    found = [each for one in (value, np.diff(value)) for each in (*peaks(one, limit), *waves(one))]
    calendar = [round(span / step_ms) for span in (DAY_MS, WEEK_MS)]
    tried = {round(p / part) for p in found for part in (1, 2, 3, 4)} | set(calendar)
    shares = {p: explained(value, p) for p in sorted(tried) if shortest <= p <= limit}
    likely = {p: share for p, share in shares.items() if share >= max(_LEAST_SHARE, _FEW_CYCLES * p / len(value))}
    if not likely:
        return None, 0.0, value
    best = max(likely, key=lambda p: likely[p])
    moves = level(value, best)[1]  # one measure for all that may come first
    period = next(p for p in likely if p == best or explained(moves, p, moving=False) >= enough * likely[best])
    around = range(max(period - _around(period), 2), min(period + _around(period), limit) + 1)
    shares = {p: explained(value, p) for p in around}  # noise moves a peak by a few readings
    period = max(shares, key=lambda p: (shares[p], -abs(p - period)))
    return period, shares[period], value - profile(level(value, period)[1], period)


def _around(period: int) -> int:
    return min(-(-period // 33), 10)


def waves(value: Floats) -> list[int]:
    """The periods of the strongest waves in the spectrum, what is missing taken as the mean."""
    centred = np.nan_to_num(value - np.nanmean(value)) if np.isfinite(value).any() else np.zeros(len(value))
    power = np.abs(np.fft.rfft(centred)) ** 2
    power[:_LEAST_CYCLES] = 0
    strongest = np.argsort(-power, kind="stable")[:_CANDIDATES]
    return [round(len(value) / int(k)) for k in strongest if power[k] > 0]


def peaks(value: Floats, limit: int) -> list[int]:
    """The lags up to `limit` where the autocorrelation peaks, the highest few, NaN left out of it."""
    real = np.isfinite(value)
    if limit < 2 or real.sum() < 4:
        return []
    size = 1 << (2 * len(value) - 1).bit_length()
    centred = np.where(real, value - np.nanmean(value), 0)
    pairs = np.fft.irfft(np.abs(np.fft.rfft(real.astype(float), size)) ** 2)[: limit + 2]
    products = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2)[: limit + 2]
    correlation = products / np.maximum(pairs, 1)
    inner = correlation[1:-1]
    top = np.flatnonzero((inner > correlation[:-2]) & (inner >= correlation[2:]) & (inner > 0)) + 1
    top = top[top > 1]
    highest: list[int] = top[np.argsort(-correlation[top], kind="stable")][:_CANDIDATES].tolist()
    return highest


def explained(value: Floats, period: int, moving: bool = True) -> float:
    """The share of the variance of each cycle, around the `moving` level, that the mean of the other cycles foretells.

    Chance gives 0 or less: leaving each cycle out keeps a wave that drifts at random, and has as many phases as it has
    cycles, from looking like a season.
    """
    cycles = _fold(level(value, period)[1] if moving else value, period)
    real = np.isfinite(cycles)
    filled = np.where(real, cycles, 0)
    others = real.sum(0) - real
    mean = (filled.sum(0) - filled) / np.maximum(others, 1)
    judged = real & (others > 0)
    if judged.sum() < period:
        return 0.0
    total = np.mean(cycles[judged] ** 2)
    return float(1 - np.mean((cycles - mean)[judged] ** 2) / total) if total > 0 else 0.0


def profile(value: Floats, period: int) -> Floats:
    """The mean cycle, as long as the values."""
    cycles = _fold(value, period)
    real = np.isfinite(cycles)
    mean = np.where(real, cycles, 0).sum(0) / np.maximum(real.sum(0), 1)
    return np.resize(mean, len(value))


def _fold(value: Floats, period: int) -> Floats:
    whole = np.append(value, np.full(-len(value) % period, np.nan))
    return whole.reshape(-1, period)


def level(value: Floats, period: int) -> tuple[Floats, Floats]:
    """The mean over a period around each value, and the value less that; NaN within half a period of the ends."""
    real = np.isfinite(value)
    sums = np.cumsum(np.concatenate([[0.0], np.where(real, value, 0)]))
    counts = np.cumsum(np.concatenate([[0], real]))
    mean = np.full(len(value), np.nan)
    half = period // 2
    inner = slice(half, len(value) - (period - half) + 1)
    mean[inner] = (sums[period:] - sums[:-period]) / np.maximum(counts[period:] - counts[:-period], 1)
    return mean, value - mean
