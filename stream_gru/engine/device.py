"""The device's part of a step, on the bodies of the features that are there: gather -> score -> features -> step ->
forecast -> scatter. Columns are feature-major, (rows, N), and relative to the value of their series.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_gru import features
from stream_gru.columns import Ints
from stream_gru.detection import calibration, detector
from stream_gru.detection.channels import Direction
from stream_gru.engine.gates import Watch
from stream_gru.engine.row import Layout, Structured
from stream_gru.models.bundle import Bundle

# A product of fewer rows takes another path through the BLAS and rounds differently; small batches are filled up, so
# that a reading's result does not depend on its batch.
_LEAST_ROWS = 16

Columns = npt.NDArray[np.float32]  # (rows, N)


class Given(NamedTuple):
    """What the host says of N readings, one below the other in one matrix."""

    observation: Tensor  # (13, N) see `features.Observation`
    youth: Tensor  # (4, N) see `detector.Youth`
    context: Tensor  # (C, N) the model's inputs beside the value
    filled: Tensor  # (1, N) above 0 where the value is missing and to be filled in; (0, N) where none ever is


class Told(NamedTuple):
    """What the device says of N readings."""

    found: Columns  # (2, N) surprise and deviation
    waited: Columns  # (1, N) the median that detection had waited for, relative to the value before
    made: Columns  # (Q, N) the quantiles that had been forecast of this reading, relative to the value before
    ahead: Columns  # (3 K, N) median, lower, upper at each of the K steps, relative to this reading
    spread: Columns  # (1, N) how far the members were apart on this reading; (0, N) where there is no ensemble


class Body(NamedTuple):
    """The fields of N bodies, in the order in which the row has them (see `fields`)."""

    features: Tensor  # what the set of features knows
    made: Tensor  # (Q, N) quantiles forecast of the next reading
    tracked: Tensor  # (Q, N) log factors of theirs, see `calibration`
    waiting: Tensor  # (L, N) medians that were forecast of the next L readings, each L readings before
    watched: detector.DetectorState
    spread: Tensor  # (1, N), or (0, N) where there is no ensemble

    @classmethod
    def of(cls, columns: Tensor, sizes: Sequence[int]) -> Self:
        """Name the rows of `columns`."""
        known, made, tracked, waiting, *watched, spread = torch.split(columns, list(sizes))
        return cls(known, made, tracked, waiting, detector.DetectorState(*watched), spread)

    def columns(self) -> Tensor:
        """One matrix again."""
        return torch.cat([*self[:4], *self.watched, self.spread])


def fields(bundle: Bundle) -> dict[str, int]:
    """The fields of a `Body`, and how many floats each takes."""
    forecaster = bundle.forecaster
    levels = len(forecaster.levels)
    sizes = {
        "features": forecaster.features.size,
        "made": levels,
        "tracked": levels,
        "waiting": bundle.description.lead,
    }
    return {**sizes, **detector.FIELDS, "spread": int(forecaster.size > 1)}


def layout(bundle: Bundle, features: int) -> Layout:
    """The row of a series of so many features: a `Body`, the network's memory and the table of its features."""
    body = {name: size for name, size in fields(bundle).items() if size}
    body["hidden"] = bundle.forecaster.network.state_size
    if bundle.forecaster.features.table:
        body["table"] = bundle.forecaster.features.table
    return Layout(features, body)


def fresh(bundle: Bundle, layout: Layout) -> Structured:
    """The row of a series never seen, (1,)."""
    start: dict[str, npt.ArrayLike] = {"hidden": bundle.forecaster.network.initial_state(1).cpu().numpy()}
    if bundle.forecaster.features.table:
        start["table"] = np.nan
    return layout.fresh(**start)


class Device:
    """Steps bodies by the weights of one bundle, in place."""

    def __init__(self, bundle: Bundle, bodies: Tensor, steps: Sequence[int], direction: Direction) -> None:
        """`bodies` are (n, W). `steps` are forecast, the first is 1; the lead of the bundle, which detection waits
        for, is among them."""
        device, description = bodies.device, bundle.description
        self._all = bodies
        self._forecaster = bundle.forecaster.to(device)
        self._levels = torch.tensor(self._forecaster.levels, device=device)[:, None]
        self._steps = torch.tensor(steps, dtype=torch.float32, device=device)[:, None]
        self._constants = detector.Constants.on(device, direction)
        self._lead = description.lead
        self._at_lead = 3 * (steps.index(self._lead) - 1)  # of `farther`: its median
        self._fixed_scale = description.scaling.kind != "online"
        sizes = fields(bundle)
        self._sizes = list(sizes.values())
        self._memory = sum(self._sizes), self._forecaster.network.state_size  # where in a body, and how many floats
        # Of `Given` and of `Told`: where each part but the first begins.
        self._given = np.cumsum([features.OBSERVED, len(detector.Youth._fields), description.context.size]).tolist()
        self._told = np.cumsum([2, 1, sizes["made"], 3 * len(steps)]).tolist()

    @torch.inference_mode()
    def step(self, bodies: Ints, given: Columns, guess: bool, watch: Watch | None) -> Told:
        """Step N `bodies`, all different, by what is `given` of their readings.

        Missing values are filled in with the forecast where `guess`, else with the last value. `watch` looks on.
        """
        n = len(bodies)
        if n == 0:
            return Told(*np.split(np.empty((self._told[-1] + self._sizes[-1], 0), np.float32), self._told))
        if n < _LEAST_ROWS:  # the same rows again: each is written several times with the same content
            again = np.arange(_LEAST_ROWS) % n
            bodies, given = bodies[again], given[:, again]
        index, columns = (torch.from_numpy(array).to(self._all.device) for array in (bodies, given))
        told = self._step(index, Given(*torch.tensor_split(columns, self._given)), guess, watch, n)
        return Told(*np.split(told[:, :n].cpu().numpy(), self._told))

    def _step(self, index: Tensor, given: Given, guess: bool, watch: Watch | None, n: int) -> Tensor:
        """The straight line; what is `Told`, in one matrix. All but the first `n` are there to fill up."""
        forecaster, median = self._forecaster, slice(self._forecaster.band[0], self._forecaster.band[0] + 1)
        body, memory, table = self._gather(index)
        observed = _observed(given, body.made[median], guess)
        found, watched, tracked = self._score(body, observed, given)
        known, view = forecaster.features.advance(body.features, observed, table, self._steps, fixed=self._fixed_scale)
        x = (torch.cat([view.x, given.context]) if len(given.context) else view.x).T
        if watch is not None:
            watch(forecaster.network, index[:n], x[:n], memory[:n])
        output, memory = forecaster.network.step(x, memory)
        quantiles, spread = forecaster.forecast(output, view, self._steps)
        made = calibration.spread(quantiles[0], tracked, quantiles[0, median])
        farther = quantiles[1:, forecaster.band].flatten(0, 1)
        awaited = farther[self._at_lead : self._at_lead + 1]
        waiting = torch.cat([body.waiting[1:] - observed.dx, awaited])
        new = Body(known, made, tracked, waiting, watched, body.spread if spread is None else spread[:1])
        self._scatter(index, new, memory)
        return torch.cat([found, body.waiting[:1], body.made, made[forecaster.band], farther, body.spread])

    def _gather(self, index: Tensor) -> tuple[Body, Tensor, features.RowTable]:
        """Bodies, the network's memories (N, S), and where their tables lie."""
        begin, size = self._memory
        columns = self._all[:, :begin].index_select(0, index).T.contiguous()
        table = features.RowTable(self._all.view(-1), index * self._all.shape[1] + (begin + size))
        return Body.of(columns, self._sizes), self._all[:, begin : begin + size].index_select(0, index), table

    def _scatter(self, index: Tensor, body: Body, memory: Tensor) -> None:
        begin, size = self._memory
        self._all[:, :begin].index_copy_(0, index, body.columns().T.contiguous())
        self._all[:, begin : begin + size].index_copy_(0, index, memory)

    def _score(
        self, body: Body, observed: features.Observation, given: Given
    ) -> tuple[Tensor, detector.DetectorState, Tensor]:
        """Hold readings against the forecasts made before them: what was found, and what is learned of it, the
        detector's state and the factors of the quantiles. A value that was filled in is no evidence."""
        waited = observed.rate * self._lead <= 1  # else there was no forecast yet
        evidence = detector.Evidence((observed.dx - body.waiting[:1]) * waited, observed.dx, observed.floor)
        age = detector.Youth(*torch.split(given.youth, 1))
        found, watched = detector.score(body.watched, evidence, age, self._constants)
        tracked = calibration.track(body.tracked, body.made, observed.dx, observed.rate, self._levels)
        if len(given.filled):
            filled = given.filled > 0
            tracked = torch.where(filled, body.tracked, tracked)
            pairs = zip(body.watched, watched, strict=True)
            watched = detector.DetectorState(*(torch.where(filled, old, new) for old, new in pairs))
        return found, watched, tracked


def _observed(given: Given, forecast: Tensor, guess: bool) -> features.Observation:
    """The readings; in the place of missing ones the `forecast` (1, N) where `guess`, else the last value."""
    columns = given.observation
    if len(given.filled):
        move = forecast if guess else torch.zeros_like(forecast)
        columns = features.imputed(columns, given.filled > 0, move)
    return features.Observation.of(columns)
