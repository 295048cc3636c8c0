"""What a model costs: parameters, bytes, the time of a step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stream_gru import features
from stream_gru.columns import Readings
from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle
from stream_gru.models.bundle import Description
from stream_gru.models.cells import Cell
from stream_gru.models.forecaster import Forecaster
from stream_gru.training.objective import loss, run
from stream_gru.training.prepare import Prepared

Task = Callable[[], object]
BATCHES = (1, 64, 4096)  # series that are stepped at once
_AT_LEAST_S = 0.02  # of a measurement: short tasks are repeated within it
_COPIES_IN_TRAINING = 4  # copies of the weights in training: themselves, gradients, two moments of Adam


@dataclass(frozen=True, slots=True)
class Size:
    """What doesn't depend on the machine. Bytes but where the name says otherwise."""

    parameters: int
    cell_parameters: int  # of the recurrent cells alone
    megabytes: float  # of weights.safetensors, 10^6 bytes
    state: int  # of the network's memory of a series
    row: int  # all that is kept of a series of one feature
    training: int  # weights, gradients, optimiser and what a training step keeps for its backward pass


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(weight.numel() for weight in module.parameters())


def cell_parameters(module: nn.Module) -> int:
    """Those of recurrent cells, each counted once."""
    found = {id(weight): weight for part in module.modules() if isinstance(part, Cell) for weight in part.parameters()}
    return sum(weight.numel() for weight in found.values())


def activations(forecaster: Forecaster, prepared: Prepared) -> int:
    """Bytes that a training step over these windows keeps for its backward pass, beside the weights and the data."""
    given = {tensor.untyped_storage().data_ptr() for tensor in (*forecaster.parameters(), *prepared)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(forecaster, run(forecaster, prepared)[0], prepared)
    del value  # until here the graph holds what was kept, so that no storage is counted under the address of another
    return sum(kept.values())


def size(description: Description, forecaster: Forecaster, prepared: Prepared) -> Size:
    """Count; `prepared` is the batch of a training step."""
    with tempfile.TemporaryDirectory() as folder:
        bundle.save(Path(folder), description, forecaster)
        weights = (Path(folder) / bundle.WEIGHTS).stat().st_size
        row = Stepper(Path(folder), capacity=1, device="cpu").layout.row_bytes
    count = parameters(forecaster)
    return Size(
        count,
        cell_parameters(forecaster),
        weights / 1e6,
        4 * forecaster.network.state_size,
        row,
        4 * count * _COPIES_IN_TRAINING + activations(forecaster, prepared),
    )


def training_step(forecaster: Forecaster, prepared: Prepared) -> Task:
    """A step of the optimiser over these windows, to be timed. It changes the weights."""
    optimiser = torch.optim.AdamW(forecaster.parameters(), 1e-4)
    forecaster.train()

    def step() -> None:
        optimiser.zero_grad()
        value = loss(forecaster, run(forecaster, prepared)[0], prepared)
        value.backward()  # type: ignore[no-untyped-call] # torch leaves it unannotated
        nn.utils.clip_grad_norm_(forecaster.parameters(), 1.0)
        optimiser.step()
        if value.is_cuda:
            torch.cuda.synchronize()

    return step


def streaming_step(forecaster: Forecaster, n: int) -> Task:
    """The network and its heads over one reading of each of n series, to be timed."""
    device = next(forecaster.parameters()).device
    forecaster.eval()
    x = torch.randn(n, forecaster.network.input_size, device=device)
    moves = torch.randn(len(forecaster.steps), forecaster.features.anchors - 1, n, device=device)
    view = features.FeatureView(x.T, moves, torch.ones(1, n, device=device))
    state = forecaster.network.initial_state(n).detach().clone()

    @torch.inference_mode()
    def step() -> None:
        nonlocal state
        output, state = forecaster.network.step(x, state)
        forecaster.forecast(output, view, forecaster.ahead)
        if x.is_cuda:
            torch.cuda.synchronize()

    return step


def engine_step(description: Description, forecaster: Forecaster, n: int) -> Task:
    """All that a worker's model side does with one reading of each of n series, to be timed."""
    with tempfile.TemporaryDirectory() as folder:
        bundle.save(Path(folder), description, forecaster)
        engine = Stepper(
            Path(folder),
            capacity=n,
            device=str(next(forecaster.parameters()).device),
        )
    engine.arena.open(0)
    slots = engine.arena.admit(0, [b"%d" % i for i in range(n)])
    rng = np.random.default_rng(0)
    unknown = np.full((n, len(engine.covariates)), np.nan)
    ticks = 0

    def step() -> None:
        nonlocal ticks
        ticks += 1
        value = np.concatenate([rng.normal(size=(n, 1)), unknown], axis=1)
        engine.step(Readings(slots, np.full(n, ticks), np.full(n, ticks * 1000), value))

    return step


def interleaved(tasks: Mapping[str, Task], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each task in each round. The tasks take turns, the first one another each round, so that what else
    the machine does meets them alike; how often a task is repeated in a measurement is found before, unmeasured."""
    repeats = {}
    for name, task in tasks.items():
        task()
        began = time.perf_counter()
        task()
        repeats[name] = max(1, round(_AT_LEAST_S / max(time.perf_counter() - began, 1e-7)))
    names, seconds = list(tasks), {name: [0.0] * rounds for name in tasks}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = clock()
            for _ in range(repeats[name]):
                tasks[name]()
            seconds[name][turn] = (clock() - began) / repeats[name]
    return seconds


def clock(device: str, threads: int) -> Callable[[], float]:
    """Seconds of this process where one CPU thread does all the work, so that others' don't count; else of the wall."""
    return time.process_time if device == "cpu" and threads == 1 else time.perf_counter


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return float(np.median(values))
