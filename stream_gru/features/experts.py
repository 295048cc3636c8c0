"""Thirteen cheap online forecasters in the row, and how each of them has been doing: the network mixes them.

Smoothers and a line through two of them (Brown 1959), the profile of a day and of a week, and a regression over all of
them by recursive least squares (Haykin 2002). A new series is forecast from its first readings, since whichever of them
suits it is known soon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stream_gru.features.expert_tables import (
    ANCHORS,
    AVERAGES,
    CANDIDATES,
    INPUTS,
    PARTS,
    PROFILE_HOURS,
    PROFILE_RATES,
    SMOOTHERS,
    TERM_COUNT,
    TERMS,
    ExpertState,
    anchor,
    level,
    move,
)
from stream_gru.features.observation import Observation
from stream_gru.features.set import FeatureSet, FeatureView, RowTable, asinh, rows_of

_MEAN, _QUICK, _SLOW, _TENTH = (level(name) for name in ("mean", "quick", "slow", "tenth"))
_MEAN_AND_QUICK = slice(_MEAN.start, _QUICK.stop)
# How many readings a smoother lies behind on a line that goes on: (1 - rate) / rate.
_QUICK_LAG, _SLOW_LAG = ((1 - rate) / rate for rate in (SMOOTHERS[row.start].rate for row in (_QUICK, _SLOW)))
_SEASONS = slice(anchor("day").start, anchor("week").stop)
_SIGNED = [row for row in INPUTS if row.how == "asinh"]
_SIZES = [row for row in INPUTS if row.how == "log"]
_DAY, _CHANGES = move("day"), slice(move("day's change").start, move("week's change").stop)
_HOUR_S = 3600
_TREND_DAMPING = 0.9  # at each step ahead the trend adds so much of what it added at the step before
_RANGE_FORGETTING = 0.002  # share of the distance to the extremes, a reading
_INTERVAL_STEP = 0.1  # what an unusual gap counts at most: half a logarithm, so the usual gap grows by 22% at most
_INTERVAL_FIRST = 8  # readings, before which the last gap is the usual one
# Of recursive least squares; chosen as the numbers in `expert_tables`.
_FORGETTING = 0.998  # a reading
_PRIOR_VARIANCE = 0.3  # of each coefficient, before any reading
_TRACE_MOST = 50.0  # of the covariance: without a limit it would grow while nothing happens
_CLIP = 8.0  # mean differences: terms and forecasts of the regression beyond count as this
_INPUT_LIMIT = 8.0  # of every input of the network
_LOG_SEEN_MOST = 7.0  # log of 1,100 readings: about a window of the training, so that no older series looks unknown


class Experts(FeatureSet):
    """See the module."""

    size = sum(part.floats for part in PARTS.values())
    table = sum(PROFILE_HOURS.values())
    inputs = sum(row.floats for row in INPUTS)
    anchors = len(ANCHORS)
    errors = rows_of([(row.name, row.floats) for row in INPUTS], "errors")

    def __init__(self) -> None:
        super().__init__()
        row, column = torch.triu_indices(TERM_COUNT, TERM_COUNT)
        square = torch.zeros(TERM_COUNT, TERM_COUNT, dtype=torch.int64)
        square[row, column] = square[column, row] = torch.arange(len(row))
        self.rates: Tensor
        self.triangle: Tensor  # where the kept part of a covariance lies in the whole
        self.square: Tensor  # and the whole in the kept part
        self.prior: Tensor  # kept part of the covariance before any reading, from which it is counted
        self.cycles: Tensor  # hours in the day, and in the week
        self.begins: Tensor  # of their profiles in the table
        self.profile_rates: Tensor
        constants = {
            "rates": torch.tensor([rate for part in AVERAGES.values() for rate in part.rates])[:, None],
            "triangle": row * TERM_COUNT + column,
            "square": square.flatten(),
            "prior": (row == column).float()[:, None] * _PRIOR_VARIANCE,
            "cycles": torch.tensor(list(PROFILE_HOURS.values()))[:, None],
            "begins": torch.tensor([0, PROFILE_HOURS["day"]])[:, None],
            "profile_rates": torch.tensor([PROFILE_RATES[name] for name in PROFILE_HOURS])[:, None],
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def advance(
        self, state: Tensor, observed: Observation, table: RowTable, steps: Tensor, *, fixed: bool = False
    ) -> tuple[Tensor, FeatureView]:
        """See `FeatureSet.advance`. Seasons are read off the profiles at the hour of each step."""
        old = ExpertState(*torch.split(state, [part.floats for part in PARTS.values()]))
        dx, rate = observed.dx, observed.rate
        misses = torch.cat([dx, dx - old.forecasts])  # of the anchors
        theta, covariance = self._learn(old, dx, old.slow + observed.floor)
        slot, fill = self._fill(old, observed, table)

        levels, hour = old.levels - dx, observed.week.floor()
        usual = old.interval + (observed.log_gap - old.interval).clamp(-_INTERVAL_STEP, _INTERVAL_STEP)
        usual = torch.where(rate * _INTERVAL_FIRST > 1, observed.log_gap, usual)
        size = dx.abs()
        targets = {
            "levels": torch.zeros_like(levels),
            "trend": dx,
            "errors": misses.abs(),
            "smoother_errors": levels[CANDIDATES].abs(),
            "spread": levels[_MEAN].abs(),
            "fast": size,
            "slow": size,
            "unchanged": observed.unchanged,
            "interval": usual,
            "phase": observed.week - hour,
            "offsets": misses[_SEASONS],
        }
        before = {**old._asdict(), "levels": levels}
        averages = torch.cat([before[name] for name in AVERAGES])
        target = torch.cat([targets[name] for name in AVERAGES])
        averages = torch.lerp(averages, target, torch.maximum(self.rates, rate))
        parts = torch.split(averages, [part.floats for part in AVERAGES.values()])
        low, high = ((old.bounds - dx) * (1 - _RANGE_FORGETTING)).chunk(2)
        new = ExpertState(
            **dict(zip(AVERAGES, parts, strict=True)),
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

    def _learn(self, old: ExpertState, dx: Tensor, one: Tensor) -> tuple[Tensor, Tensor]:
        """A step of recursive least squares: what the terms before this reading say of it."""
        terms = _terms(old, old.forecasts, one).double()  # the rounding of single precision would add up
        whole = (old.covariance + self.prior).double().index_select(0, self.square).view(TERM_COUNT, TERM_COUNT, -1)
        product = (whole * terms).sum(1)
        gain = product / ((product * terms).sum(0) + _FORGETTING)
        miss = (dx / one).clamp(-_CLIP, _CLIP) - (old.theta * terms).sum(0, keepdim=True)
        learned = torch.addcmul(whole, gain[:, None], product[None], value=-1)
        learned = learned.flatten(0, 1).index_select(0, self.triangle) / _FORGETTING
        trace = (learned * (self.prior > 0)).sum(0, keepdim=True)
        learned = learned * (_TRACE_MOST / trace).clamp(max=1) - self.prior
        return torch.addcmul(old.theta.double(), gain, miss).float(), learned.float()

    def _fill(self, old: ExpertState, observed: Observation, table: RowTable) -> tuple[Tensor, Tensor]:
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

    def _moves(self, new: ExpertState, observed: Observation, table: RowTable, one: Tensor, steps: Tensor) -> Tensor:
        """All anchors but the last value at each step, (S, A - 1, N)."""
        seasons = self._profiles(new, observed, table, torch.nn.functional.pad(steps, (0, 0, 1, 0)))
        now, then = seasons[:1], seasons[1:]  # (S, 2, N)
        reach = ((1 - _TREND_DAMPING**steps) / (1 - _TREND_DAMPING))[:, None]
        quick, slow = new.levels[_QUICK], new.levels[_SLOW]  # (1, N)
        line = quick + (quick - slow) * ((_QUICK_LAG + steps) / (_SLOW_LAG - _QUICK_LAG))  # (S, N)
        seasonal = torch.cat([then, then - now, then + new.offsets], 1).nan_to_num(0.0)
        levels = new.levels[_MEAN_AND_QUICK].expand(len(steps), -1, -1)
        known = torch.cat([levels, new.trend * reach, seasonal, line[:, None]], 1)
        regression = (new.theta * _terms(new, known[0], one)).sum(0, keepdim=True).clamp(-_CLIP, _CLIP) * one
        smoother = _of_least(new.smoother_errors, new.levels[CANDIDATES])
        return torch.cat([known, torch.cat([regression, smoother]).expand(len(steps), -1, -1)], 1)

    def _profiles(self, new: ExpertState, observed: Observation, table: RowTable, ahead: Tensor) -> Tensor:
        """Day and week `ahead` (K, 1 or N) steps from here, between two hours, (K, 2, N); NaN: unknown."""
        hours = (2 * new.interval).exp() / _HOUR_S
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


def _terms(state: ExpertState, forecasts: Tensor, one: Tensor) -> Tensor:
    """What the regression goes by, (T, N), in units of `one` (1, N); `forecasts` are those of the anchors' moves."""
    parts = {
        "lags": state.lags,
        "mean": state.levels[_MEAN],
        "tenth": state.levels[_TENTH],
        "day": forecasts[_DAY],
        "changes": forecasts[_CHANGES],
    }
    return (torch.cat([parts[name] for name in TERMS]) / one).clamp(-_CLIP, _CLIP)


def _view(state: ExpertState, moves: Tensor, observed: Observation, innovation: Tensor, one: Tensor) -> FeatureView:
    """What the network sees, in units of `one` (1, N)."""
    errors = state.errors + observed.floor
    unit = errors.amin(0, keepdim=True)
    low, high = state.bounds.chunk(2)
    given = {
        "moves": moves[0],
        "lags": state.lags,
        "errors": errors,
        "favourite": _of_least(errors, torch.cat([torch.zeros_like(unit), moves[0]])),
        "innovation": innovation,
        "y": observed.y,
        "offsets": state.offsets,
        "unit": unit,
        "fast": state.fast + observed.floor,
        "spread": state.spread + observed.floor,
        "unchanged": state.unchanged,
        "height": low / (low - high - observed.floor),
        "interval": state.interval,
        "log_gap": observed.log_gap,
        "log_seen": observed.log_seen.clamp(max=_LOG_SEEN_MOST),
        "cosine": observed.cosine,
        "sine": observed.sine,
    }
    signed = asinh(torch.cat([given[row.name] for row in _SIGNED]) / one)
    sizes = (torch.cat([given[row.name] for row in _SIZES]) / one).log()
    for rows, values in ((_SIGNED, signed), (_SIZES, sizes)):
        parts = torch.split(values, [row.floats for row in rows])
        given |= {row.name: part for row, part in zip(rows, parts, strict=True)}
    x = torch.cat([given[row.name] for row in INPUTS]).clamp(-_INPUT_LIMIT, _INPUT_LIMIT)
    return FeatureView(x, moves, unit)
