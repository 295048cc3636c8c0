"""What is usually said of GRU, LSTM and plain RNN, held against what was measured. Rules only, no measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from stream_gru.models.network import Network
from stream_gru.training.comparison.results import Results

Verdict = Literal["reproduced", "refuted", "undecided"]
_SURE_DEVIATIONS = 2.0  # deviations
_FEWEST_SEEDS = 3  # seeds that tell a deviation
_SHORT_READINGS, _LONG_READINGS = (10, 25, 50), (250, 1000)  # readings seen of a series


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, what became of it, and the numbers."""

    claim: str
    verdict: Verdict
    measured: str


class Estimate(NamedTuple):
    """A number and the interval that it lies in."""

    middle: float
    low: float
    high: float


class Said(NamedTuple):
    """A range, in numbers and in words."""

    low: float
    high: float
    text: str


_GATED, _PLAIN = Said(50, 100, "50-100"), Said(0, 9, "fewer than 10")


def of_rounds(values: Sequence[float]) -> Estimate:
    """The median and its 95% interval by order statistics, which asks nothing of the noise: ranks n/2 -+ 0.98 sqrt(n).

    Fewer than 6 values have none: from the smallest to the largest.
    """
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    half = 0.98 * n**0.5
    low = max(int(np.floor(n / 2 - half)), 0)
    high = min(int(np.ceil(n / 2 + half)), n - 1)
    return Estimate(float(np.median(ordered)), float(ordered[low]), float(ordered[high]))


def of_seeds(values: Sequence[float]) -> Estimate:
    """The mean, give or take the deviation of the seeds; of one seed the deviation is unknown, not 0."""
    middle = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("inf")
    return Estimate(middle, middle - spread, middle + spread)


def within(estimate: Estimate, low: float, high: float) -> Verdict:
    """Whether a number lies between `low` and `high`: reproduced if its whole interval does, refuted if none of it."""
    if low <= estimate.low and estimate.high <= high:
        return "reproduced"
    if estimate.high < low or estimate.low > high:
        return "refuted"
    return "undecided"


def lower(first: Sequence[float], second: Sequence[float]) -> Verdict:
    """Whether the errors of `first` are lower than those of `second`, seed by seed.

    The mean difference must be larger than twice the deviation of the differences; by Student's t chance alone then
    decides once in 13 times with 3 seeds, in 35 with 4. Fewer than 3 decide nothing.
    """
    difference = np.asarray(second, float) - np.asarray(first, float)
    if len(difference) < _FEWEST_SEEDS or abs(difference.mean()) <= _SURE_DEVIATIONS * difference.std(ddof=1):
        return "undecided"
    return "reproduced" if difference.mean() > 0 else "refuted"


def fewer_parameters(what: str, gru: int, lstm: int) -> Claim:
    """25%: what rounds to it in steps of five points."""
    share = 100 * (1 - gru / lstm)
    verdict = within(Estimate(share, share, share), 22.5, 27.5)
    claim = f"a GRU's {what} has 25% fewer parameters than an LSTM's"
    return Claim(claim, verdict, f"{share:.1f}% fewer: {gru:,} against {lstm:,}")


def faster(what: str, gru: Sequence[float], lstm: Sequence[float]) -> Claim:
    """10-15% less time; `gru` and `lstm` are seconds of the same rounds."""
    saved = of_rounds(100 * (1 - np.asarray(gru, float) / np.asarray(lstm, float)))
    least, most = sorted((abs(saved.low), abs(saved.high)))
    if saved.low > 0 or saved.high < 0:
        direction = "less" if saved.middle > 0 else "more"
        measured = f"{abs(saved.middle):.0f}% {direction} time ({least:.0f} to {most:.0f}%)"
    else:
        measured = f"the difference is noise: between {-saved.low:.0f}% more and {saved.high:.0f}% less time"
    return Claim(f"a GRU is 10-15% faster than an LSTM in {what}", within(saved, 10, 15), measured)


def remembers(name: str, reaches: tuple[Sequence[int], Sequence[int]], said: Said, farthest: int) -> Claim:
    """How many readings back the gradient is felt, by seed, after and before training.

    What reaches `farthest` may reach any distance.
    """
    steps, at_first = reaches
    estimate = of_seeds(steps)
    if max(steps) >= farthest:
        estimate = estimate._replace(high=float("inf"))
    shown = f"{told(steps, farthest)} steps; {told(at_first, farthest)} before training"
    return Claim(f"the {name} remembers {said.text} steps", within(estimate, said.low, said.high), shown)


def told(steps: Sequence[int], farthest: float) -> str:
    """Reaches by seed as one text: 12-15, 200+."""
    few, many = min(steps), max(steps)
    text = f"{few}" if few == many else f"{few}-{many}"
    return f"{text}+" if many >= farthest else text


def better(claim: str, winner: str, other: str, errors: tuple[Sequence[float], Sequence[float]]) -> Claim:
    """The errors of `winner` are lower, by seed."""
    first, second = errors
    shown = f"{winner} {np.mean(first):.3f}, {other} {np.mean(second):.3f}: {apart(first, second)}"
    return Claim(claim, lower(first, second), shown)


def apart(first: Sequence[float], second: Sequence[float]) -> str:
    """How much larger the errors of `first` are, seed by seed, and the deviation of that: -1.2% ± 0.4."""
    shares = 100 * (np.asarray(first, float) / np.asarray(second, float) - 1)
    return f"{shares.mean():+.1f}%" + (f" ± {shares.std(ddof=1):.1f}" if len(shares) > 1 else "")


def judge(results: Results) -> list[Claim]:
    """The claims that these models can tell about: those of a GRU, an LSTM and a plain RNN of the same settings."""
    by_cell = alike({name: model.network for name, model in results.models.items()})
    gru, lstm, rnn = (by_cell.get(cell) for cell in ("gru", "lstm", "rnn"))
    found: list[Claim] = []
    if gru and lstm:
        found += _costs(results, gru, lstm)
    for name, said in ((gru, _GATED), (lstm, _GATED), (rnn, _PLAIN)):
        if name:
            found.append(remembers(name, results.reaches(name), said, results.farthest))
    if gru and lstm:
        found += _duels(results, gru, lstm)
    if gru and rnn:
        errors = results.at_positions(gru, _LONG_READINGS), results.at_positions(rnn, _LONG_READINGS)
        if errors[0]:
            found.append(better("gates win over a plain RNN late in a series", gru, rnn, errors))
    return found


def alike(networks: Mapping[str, Network]) -> dict[str, str]:
    """Cell -> the model of that cell alone, of those that differ from the first such model in nothing else."""
    plain = {name: network for name, network in networks.items() if len(set(network.cells)) == 1}
    found: dict[str, str] = {}
    for name, network in plain.items():
        first = next(iter(plain.values()))
        if network.model_copy(update={"cells": first.cells}) == first and len(network.cells) == len(first.cells):
            found.setdefault(network.cells[0], name)
    return found


def _costs(results: Results, gru: str, lstm: str) -> list[Claim]:
    one, other = results.models[gru], results.models[lstm]
    found = [
        fewer_parameters("cell", one.size.cell_parameters, other.size.cell_parameters),
        fewer_parameters("whole model", one.size.parameters, other.size.parameters),
        faster("training", one.training_step, other.training_step),
    ]
    for batch, seconds in one.step.items():
        found.append(faster(f"a step of {batch:,} series", seconds, other.step[batch]))
    return found


def _duels(results: Results, gru: str, lstm: str) -> list[Claim]:
    found = []
    for claim, winner, loser, positions in (
        (
            f"the GRU wins early in a series (after {', '.join(map(str, _SHORT_READINGS))} readings)",
            gru,
            lstm,
            _SHORT_READINGS,
        ),
        (f"the LSTM wins late in a series (after {', '.join(map(str, _LONG_READINGS))})", lstm, gru, _LONG_READINGS),
    ):
        errors = results.at_positions(winner, positions), results.at_positions(loser, positions)
        if errors[0]:
            found.append(better(claim, winner, loser, errors))
    small, whole = min(results.shares), max(results.shares)
    if small < whole:
        claim = f"the GRU wins on small data ({small:.0%} of it, {results.learned[small]:,} readings)"
        found.append(better(claim, gru, lstm, (results.errors(gru, small), results.errors(lstm, small))))
    claim = f"the LSTM wins on large data ({results.learned[whole]:,} readings)"
    return [*found, better(claim, lstm, gru, (results.errors(lstm, whole), results.errors(gru, whole)))]
