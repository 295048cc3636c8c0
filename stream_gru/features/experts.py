"""Thirteen cheap online forecasters in the row, and how each of them has been doing: the network mixes them.

Smoothers and a line through two of them (Brown 1959), the profile of a day and of a week, and a regression over all of
them by recursive least squares (Haykin 2002). A new series is forecast from its first readings, since whichever of them
suits it is known soon.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stream_gru.features.observation import Observation
from stream_gru.features.set import FeatureSet, Table, View, asinh

_LEVELS = (0.005, 0.2, 0.05, 0.1, 0.35, 0.6, 0.85)  # rates of the smoothers
_SMOOTHERS = slice(2, 7)  # those of them that the best one is chosen from
_ANCHORS = 13  # the last value, two smoothers, trend, day, week, change of the day, of the week, day and week at the
# present level, line, regression, best smoother
_QUICK, _STEADY = 1, 2  # smoothers that the line goes through
_LAG = tuple((1 - _LEVELS[i]) / _LEVELS[i] for i in (_QUICK, _STEADY))  # readings that they lie behind on a line
_SEASONS = slice(4, 6)  # of them: day and week
_ERROR, _SMOOTHER_ERROR = 0.03, 0.03  # rates of the running errors
_TREND, _FAST, _SLOW, _SPREAD, _UNCHANGED = 0.15, 0.15, 0.01, 0.005, 0.05
_INTERVAL, _INTERVAL_STEP = 0.05, 0.1  # rate of the usual log gap, and what an unusual one counts at most
_PHASE, _OFFSET = 0.02, 0.3  # rates of the mean place within an hour, of the distances from the profiles
_DAMPING = 0.9  # of the trend, each step
_RANGE = 0.002  # of the distance to the extremes is forgotten with each reading
_DAY, _WEEK = 24, 168  # hours
_DAY_RATE, _WEEK_RATE = 0.3, 0.5  # of the profiles
_TERMS = 8  # of the regression
_FORGETTING, _PRIOR, _TRACE = 0.998, 0.3, 50.0
_CLIP = 8.0  # of the regression's terms, in mean differences
_LIMIT = 8.0  # of every input
_OLD = 7.0  # log of the readings, from which on a series does not look older: about a window of the training

_PARTS = {
    "levels": len(_LEVELS),
    "bounds": 2,  # decaying minimum and maximum
    "slot": 1,  # mean of the readings of this hour
    "trend": 1,
    "errors": _ANCHORS,
    "smoother_errors": 5,
    "spread": 1,  # mean |x - slowest level|
    "fast": 1,  # mean |dx|
    "slow": 1,
    "unchanged": 1,
    "interval": 1,  # usual log gap
    "phase": 1,  # mean place of the readings within their hour
    "offsets": 2,  # mean distance from the profiles of day and week
    "hour": 1,  # of the week, that `slot` is of
    "fill": 1,  # readings in it
    "lags": 3,  # the last differences
    "forecasts": _ANCHORS - 1,  # of the anchors for the next reading
    "theta": _TERMS,
    "covariance": _TERMS * (_TERMS + 1) // 2,  # a triangle of it
}
_AVERAGES = (
    *("levels", "trend", "errors", "smoother_errors"),
    *("spread", "fast", "slow", "unchanged", "interval", "phase", "offsets"),
)
_RATES = (
    *(*_LEVELS, _TREND),
    *((_ERROR,) * _ANCHORS),
    *((_SMOOTHER_ERROR,) * 5),
    *(_SPREAD, _FAST, _SLOW, _UNCHANGED, _INTERVAL, _PHASE, _OFFSET, _OFFSET),
)


class _State(NamedTuple):
    """The parts of `_PARTS`, (k, N) each."""

    levels: Tensor
    bounds: Tensor
    slot: Tensor
    trend: Tensor
    errors: Tensor
    smoother_errors: Tensor
    spread: Tensor
    fast: Tensor
    slow: Tensor
    unchanged: Tensor
    interval: Tensor
    phase: Tensor
    offsets: Tensor
    hour: Tensor
    fill: Tensor
    lags: Tensor
    forecasts: Tensor
    theta: Tensor
    covariance: Tensor


class Experts(FeatureSet):
    """See the module."""

    size = sum(_PARTS.values())
    table = _DAY + _WEEK
    inputs = 43
    anchors = _ANCHORS
    errors = slice(_ANCHORS + 2, 2 * _ANCHORS + 2)

    def __init__(self) -> None:
        super().__init__()
        row, column = torch.triu_indices(_TERMS, _TERMS)
        square = torch.zeros(_TERMS, _TERMS, dtype=torch.int64)
        square[row, column] = square[column, row] = torch.arange(len(row))
        self.rates: Tensor
        self.triangle: Tensor  # where the kept part of a covariance lies in the whole
        self.square: Tensor  # and the whole in the kept part
        self.prior: Tensor  # kept part of the covariance before any reading, from which it is counted
        self.cycles: Tensor  # hours in the day, and in the week
        self.begins: Tensor  # of their profiles in the table
        self.profile_rates: Tensor
        constants = {
            "rates": torch.tensor(_RATES)[:, None],
            "triangle": row * _TERMS + column,
            "square": square.flatten(),
            "prior": (row == column).float()[:, None] * _PRIOR,
            "cycles": torch.tensor([_DAY, _WEEK])[:, None],
            "begins": torch.tensor([0, _DAY])[:, None],
            "profile_rates": torch.tensor([_DAY_RATE, _WEEK_RATE])[:, None],
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def advance(
        self, state: Tensor, observed: Observation, table: Table, steps: Tensor, *, fixed: bool = False
    ) -> tuple[Tensor, View]:
        """See `FeatureSet.advance`. Seasons are read off the profiles at the hour of each step."""
        old = _State(*torch.split(state, list(_PARTS.values())))
        dx, rate = observed.dx, observed.rate
        misses = torch.cat([dx, dx - old.forecasts])  # of the anchors
        theta, covariance = self._learn(old, dx, old.slow + observed.floor)
        slot, fill = self._fill(old, observed, table)

        levels, hour = old.levels - dx, observed.week.floor()
        usual = old.interval + (observed.log_gap - old.interval).clamp(-_INTERVAL_STEP, _INTERVAL_STEP)
        usual = torch.where(rate * 8 > 1, observed.log_gap, usual)
        sizes = torch.cat([misses, levels[_SMOOTHERS], levels[:1], dx, dx]).abs()
        habits = [observed.unchanged, usual, observed.week - hour, misses[_SEASONS]]
        averages = torch.cat([levels, *(getattr(old, name) for name in _AVERAGES[1:])])
        target = torch.cat([torch.zeros_like(levels), dx, sizes, *habits])
        averages = torch.lerp(averages, target, torch.maximum(self.rates, rate))
        parts = dict(zip(_AVERAGES, torch.split(averages, [_PARTS[name] for name in _AVERAGES]), strict=True))
        low, high = ((old.bounds - dx) * (1 - _RANGE)).chunk(2)
        new = _State(
            **parts,
            bounds=torch.cat([low.clamp(max=0), high.clamp(min=0)]),
            slot=slot,
            hour=hour,
            fill=fill,
            lags=torch.cat([dx, old.lags[:2]]),
            forecasts=old.forecasts,
            theta=theta,
            covariance=covariance,
        )
        one = new.slow + observed.floor
        moves = self._moves(new, observed, table, one, steps)
        new = new._replace(forecasts=moves[0])
        innovation = _of_least(old.errors, misses)
        return torch.cat(new), _view(new, moves, observed, innovation, observed.scale if fixed else one)

    def _learn(self, old: _State, dx: Tensor, one: Tensor) -> tuple[Tensor, Tensor]:
        """A step of recursive least squares: what the terms before this reading say of it."""
        terms = _terms(old, old.forecasts, one).double()  # the rounding of single precision would add up
        whole = (old.covariance + self.prior).double().index_select(0, self.square).view(_TERMS, _TERMS, -1)
        product = (whole * terms).sum(1)
        gain = product / ((product * terms).sum(0) + _FORGETTING)
        miss = (dx / one).clamp(-_CLIP, _CLIP) - (old.theta * terms).sum(0, keepdim=True)
        learned = torch.addcmul(whole, gain[:, None], product[None], value=-1)
        learned = learned.flatten(0, 1).index_select(0, self.triangle) / _FORGETTING
        trace = (learned * (self.prior > 0)).sum(0, keepdim=True)
        learned = learned * (_TRACE / trace).clamp(max=1) - self.prior
        return torch.addcmul(old.theta.double(), gain, miss).float(), learned.float()

    def _fill(self, old: _State, observed: Observation, table: Table) -> tuple[Tensor, Tensor]:
        """Take the mean of an hour that is over into the profiles. The mean of the present hour, and its readings."""
        over = observed.week.floor() != old.hour
        place = old.hour.long() % self.cycles + self.begins + table.at  # (2, N)
        kept = table.flat.take(place)
        mean = old.slot + (observed.height - observed.dx)
        learned = torch.where(kept.isnan(), mean, torch.lerp(kept, mean, self.profile_rates))
        learned = torch.where(over & (old.fill > 0), learned, kept)
        table.flat.index_copy_(0, place.flatten(), learned.flatten())
        fill = torch.where(over, 0, old.fill)
        return (old.slot - observed.dx) * (fill / (fill + 1)), fill + 1

    def _moves(self, new: _State, observed: Observation, table: Table, one: Tensor, steps: Tensor) -> Tensor:
        """All anchors but the last value at each step, (S, A - 1, N)."""
        seasons = self._profiles(new, observed, table, torch.nn.functional.pad(steps, (0, 0, 1, 0)))
        now, then = seasons[:1], seasons[1:]  # (S, 2, N)
        reach = ((1 - _DAMPING**steps) / (1 - _DAMPING))[:, None]
        quick, steady = new.levels[_QUICK], new.levels[_STEADY]
        line = quick + (quick - steady) * ((_LAG[0] + steps) / (_LAG[1] - _LAG[0]))  # (S, N)
        seasonal = torch.cat([then, then - now, then + new.offsets], 1).nan_to_num(0.0)
        levels = new.levels[:2].expand(len(steps), -1, -1)
        known = torch.cat([levels, new.trend * reach, seasonal, line[:, None]], 1)
        regression = (new.theta * _terms(new, known[0], one)).sum(0, keepdim=True).clamp(-_CLIP, _CLIP) * one
        smoother = _of_least(new.smoother_errors, new.levels[_SMOOTHERS])
        return torch.cat([known, torch.cat([regression, smoother]).expand(len(steps), -1, -1)], 1)

    def _profiles(self, new: _State, observed: Observation, table: Table, ahead: Tensor) -> Tensor:
        """Day and week `ahead` (K, 1 or N) steps from here, between two hours, (K, 2, N); NaN: unknown."""
        hours = (2 * new.interval).exp() / 3600
        time = observed.week - new.phase + hours * ahead  # (K, N)
        before = time.floor()
        between = torch.stack([before, before + 1])[:, :, None].long()  # (2, K, 1, N)
        first, second = table.flat.take(between % self.cycles + self.begins + table.at)
        mean = torch.lerp(first, second, (time - before)[:, None])
        mean = torch.where(first.isnan(), second, torch.where(second.isnan(), first, mean))
        return mean - observed.height


def _of_least(errors: Tensor, values: Tensor) -> Tensor:
    """Of (k, N) values that with the least error, (1, N); of several the mean. Faster than argmin and gather."""
    least = (errors == errors.amin(0, keepdim=True)).float()
    return (values * least).sum(0, keepdim=True) / least.sum(0, keepdim=True)


def _terms(state: _State, forecasts: Tensor, one: Tensor) -> Tensor:
    """What the regression goes by, (8, N): differences, two smoothers, the day, the changes of day and week."""
    parts = [state.lags, state.levels[:1], state.levels[3:4], forecasts[3:4], forecasts[5:7]]
    return (torch.cat(parts) / one).clamp(-_CLIP, _CLIP)


def _view(state: _State, moves: Tensor, observed: Observation, innovation: Tensor, one: Tensor) -> View:
    errors = state.errors + observed.floor
    unit = errors.amin(0, keepdim=True)
    favourite = _of_least(errors, torch.cat([torch.zeros_like(unit), moves[0]]))
    low, high = state.bounds.chunk(2)
    signed = torch.cat([moves[0], state.lags, favourite, innovation, observed.y, state.offsets]) / one
    signed = asinh(signed)
    sizes = (torch.cat([errors, unit, state.fast + observed.floor, state.spread + observed.floor]) / one).log()
    rest = [state.unchanged, low / (low - high - observed.floor), state.interval, observed.log_gap]
    rest += [observed.log_seen.clamp(max=_OLD), observed.cosine, observed.sine]
    x = torch.cat([signed[: _ANCHORS + 2], sizes[:_ANCHORS], signed[_ANCHORS + 2 :], sizes[_ANCHORS:], *rest]).clamp(
        -_LIMIT, _LIMIT
    )
    return View(x, moves, unit)
