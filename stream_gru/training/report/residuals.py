"""What a forecaster leaves unexplained on held-back data, as arrays for plots."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from stream_gru.columns import Bools, Floats
from stream_gru.models.forecaster import BAND, Forecaster
from stream_gru.training.objective import run
from stream_gru.training.prepare import Prepared

Array = npt.NDArray[np.float32]

_SERIES_AT_ONCE = 32  # series: attention over a ring takes memory
_NORMAL_95 = 1.6449  # the 95% quantile of a normal distribution, in deviations
_FLAT_SHARE = 1e-6  # of the scale: the interval of a series that never moves has no width to divide by
LAGS = 40  # of the autocorrelation: a day of hourly readings and more
LEAST_READINGS = 20  # readings for a series' own figures


@dataclass(frozen=True)
class Residuals:
    """Forecasts from T readings of N series, relative to the reading that they were made at, in the series' units."""

    steps: tuple[int, ...]  # (1 + K) ahead
    forecast: Array  # (1 + K, 3, T, N) median, lower, upper
    target: Array  # (1 + K, T, N), NaN: not known
    scale: Array  # (T, N)

    @property
    def known(self) -> Bools:
        """Which targets count, (1 + K, T, N)."""
        return np.isfinite(self.target)

    def standard(self, k: int = 0) -> Array:
        """Residuals (T, N), divided by the interval on their side so that a 90% interval of a normal one is +-1.64."""
        middle, low, high = self.forecast[k]
        miss = self.target[k] - middle
        width = np.where(miss < 0, middle - low, high - middle) / _NORMAL_95
        scaled: Array = miss / np.maximum(width, _FLAT_SHARE * self.scale)
        return scaled

    def ratio(self, k: int) -> Floats:
        """Mean absolute error of each series divided by that of repeating the last value, (N,); NaN: it never moves."""
        known = self.known[k]
        own = np.where(known, np.abs(self.target[k] - self.forecast[k, 0]), 0).sum(0, np.float64)
        naive = np.where(known, np.abs(self.target[k]), 0).sum(0, np.float64)
        return np.where((naive > 0) & (known.sum(0) >= LEAST_READINGS), own / np.where(naive > 0, naive, 1), np.nan)

    def by_horizon(self) -> tuple[Floats, Floats, Floats]:
        """Of `ratio` at each step ahead the geometric mean over the series and the quartiles, (1 + K,) each."""
        columns = np.full((3, len(self.steps)), np.nan)
        for k in range(len(self.steps)):
            ratios = self.ratio(k)
            ratios = ratios[np.isfinite(ratios)]
            if len(ratios):
                mean = np.exp(np.log(np.clip(ratios, 1e-3, 1e3)).mean())
                columns[:, k] = mean, *np.quantile(ratios, [0.25, 0.75])
        return columns[0], columns[1], columns[2]

    def below(self, k: int) -> list[tuple[float, float]]:
        """Nominal and observed share of values below each quantile, ascending; a tie counts half."""
        known = self.known[k]
        target = self.target[k][known]
        pairs = []
        for tau, quantile in sorted(zip(BAND, self.forecast[k], strict=True), key=lambda pair: pair[0]):
            bound = quantile[known]
            share = ((target < bound).sum() + 0.5 * (target == bound).sum()) / max(len(target), 1)
            pairs.append((tau, float(share)))
        return pairs

    def by_age(self) -> tuple[Floats, Floats]:
        """One-step error against the last value's by how many readings of a series were seen: centres and ratios."""
        known, t = self.known[0], np.arange(self.target.shape[1])
        own = np.where(known, np.abs(self.target[0] - self.forecast[0, 0]) / self.scale, 0).sum(1, np.float64)
        naive = np.where(known, np.abs(self.target[0]) / self.scale, 0).sum(1, np.float64)
        edges = np.unique(np.geomspace(2, max(len(t), 3), 18).astype(int))
        pairs = [
            (float(np.sqrt(first * last)), own[first:last].sum() / naive[first:last].sum())
            for first, last in pairwise(edges)
            if naive[first:last].sum() > 0
        ]
        centres, ratios = (np.array(column) for column in zip(*pairs, strict=True)) if pairs else (np.zeros(0),) * 2
        return centres, ratios

    def autocorrelation(self, lags: int) -> tuple[Floats, int]:
        """Of one-step residuals at lags 1..L, mean over the series, (L,); and how many readings a series has."""
        z = np.clip(self.standard(), -6, 6).astype(np.float64)  # one outlier would be all that a correlation sees
        known = np.isfinite(z)
        counts = known.sum(0)
        z = np.where(known, z - np.where(known, z, 0).sum(0) / np.maximum(counts, 1), 0)
        power = (z**2).sum(0) / np.maximum(counts, 1)
        real = (power > 0) & (counts >= LEAST_READINGS)
        out = np.full(lags, np.nan)
        for lag in range(1, min(lags, len(z) - 1) + 1):
            pairs = (known[lag:] & known[:-lag]).sum(0)
            use = real & (pairs >= LEAST_READINGS)
            if use.any():
                products = (z[lag:] * z[:-lag]).sum(0)[use] / pairs[use]
                out[lag - 1] = (products / power[use]).mean()
        return out, int(np.median(counts[real])) if real.any() else 0

    def stretch(self, series: int, most: int) -> slice:
        """The end of the longest run of known next readings of a series, at most `most` of them."""
        known = np.concatenate([[False], self.known[0, :, series], [False]])
        edges = np.flatnonzero(known[1:] != known[:-1])
        if not len(edges):
            return slice(0, 0)
        first, last = max(zip(edges[::2], edges[1::2], strict=True), key=lambda run: run[1] - run[0])
        return slice(max(int(first), int(last) - most), int(last))

    def examples(self, shares: tuple[float, ...]) -> list[tuple[float, int]]:
        """The series at these shares of the order by one-step error, each once: its ratio and its number."""
        ratios = self.ratio(0)
        order = np.argsort(ratios)[: int(np.isfinite(ratios).sum())]  # NaN come last
        picks = [int(order[round(share * (len(order) - 1))]) for share in shares] if len(order) else []
        return [(float(ratios[pick]), pick) for pick in dict.fromkeys(picks)]


@torch.no_grad()
def residuals(forecaster: Forecaster, prepared: Prepared) -> Residuals:
    """Forecast every reading of the windows, members averaged."""
    device = next(forecaster.parameters()).device
    was_training = forecaster.training
    forecaster.eval()
    parts = [
        run(forecaster, part.to(device))[0].mean(0)[:, forecaster.band].float().cpu()
        for part in prepared.split(_SERIES_AT_ONCE, -1)
    ]
    forecaster.train(was_training)
    forecast: Array = torch.cat(parts, -1).numpy()
    scale: Array = prepared.scale[0].float().cpu().numpy()
    target: Array = prepared.target.float().cpu().numpy()
    return Residuals(forecaster.steps, forecast, target, scale)
