"""Fit a forecaster: truncated backpropagation over the very features and network that the engine steps."""

from __future__ import annotations

import copy
import logging
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from stream_gru.errors import TrainingError
from stream_gru.models.bundle import Bundle, Description, build
from stream_gru.models.forecaster import Forecaster
from stream_gru.training.data import Windows, WindowSource
from stream_gru.training.module import Learner, initialise
from stream_gru.training.objective import Quality
from stream_gru.training.portions import Portions
from stream_gru.training.prepare import prepare
from stream_gru.training.recipe import FitPlan, Recipe
from stream_gru.training.watch import CHECKPOINT, FitCheck, FitProgress, FitWatch

__all__ = ["FitCheck", "FitProgress", "Fitted", "fit"]


@dataclass(frozen=True)
class Fitted:
    """What a fit ends with."""

    description: Description
    forecaster: Forecaster  # the weights that did best on the held-back data, on the CPU, to be used
    checks: list[FitCheck]
    before: Quality  # on the held-back data, of the weights that it started with
    quality: Quality  # of the best ones
    seconds: float
    steps: int
    readings: int
    skipped: int
    stopped: str  # steps, time, patience, pruned
    log: Path | None  # the folder


def fit(
    recipe: Recipe,
    source: WindowSource,
    held_back: Windows,
    description: Description,
    *,
    start: Bundle | None = None,
    folder: Path | None = None,
    resume: bool = False,
    tell: Callable[[FitProgress], None] = lambda _: None,
    stop: Callable[[FitCheck], bool] | None = None,
    device: str = "auto",
) -> Fitted:
    """Fit the network of `description` by `recipe.plan`, from the weights of `start` if given.

    `folder` gets the logs and, at each check, a checkpoint that `resume` goes on from. `tell` hears of every step;
    `stop` says at a check whether to prune. With the same seed and steps the weights are the same on the same machine.

    Raises `TrainingError` for what the plan asks and can't be had, and when too many batches had to be skipped. After
    a Ctrl-C the step is finished and a checkpoint written; then `KeyboardInterrupt` is raised.
    """
    where = _device(device, recipe.plan)
    checkpoint = _checkpoint(folder, recipe) if resume else None
    with torch.random.fork_rng([where] if where.type == "cuda" else []), _quiet(), _interruptible() as interrupted:
        torch.manual_seed(recipe.plan.seed)
        forecaster = _forecaster(recipe, description, start).to(where)
        learner = Learner(forecaster, recipe)
        portions = Portions(source, description, recipe.plan, where)
        watch = FitWatch(
            learner,
            prepare(held_back, description, where),
            folder=folder,
            tell=tell,
            stop=stop,
            interrupted=interrupted,
        )
        learner.train()
        _trainer(recipe.plan, where, watch).fit(
            learner, train_dataloaders=portions, ckpt_path=checkpoint, weights_only=True
        )
        if interrupted() and not watch.stopped:
            raise KeyboardInterrupt
    watch.restore_best()
    return Fitted(
        description,
        forecaster.cpu().eval().requires_grad_(False),
        watch.checks,
        watch.before,
        watch.quality,
        watch.seconds,
        learner.step,
        learner.readings,
        learner.guard.skipped,
        watch.stopped,
        folder,
    )


def _forecaster(recipe: Recipe, description: Description, start: Bundle | None) -> Forecaster:
    if start is None:
        forecaster = build(description)
        initialise(forecaster, recipe.plan.init)
        return forecaster
    own, asked = start.description, description
    parts = [(each.features, each.network, each.horizons, each.context.size) for each in (own, asked)]
    if parts[0] != parts[1]:
        raise TrainingError(
            f"the features, network, horizons and context of {start.name} are not those of the recipe; fit from "
            "random weights"
        )
    return copy.deepcopy(start.forecaster).requires_grad_(True)


def _device(name: str, plan: FitPlan) -> torch.device:
    count = torch.cuda.device_count()
    try:
        device = torch.device(("cuda" if count else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise TrainingError(f"there is no device {name!r}; use auto, cpu, cuda or cuda:1") from None
    if device.type not in {"cpu", "cuda"}:
        raise TrainingError(f"a fit can't use the device {name!r}; use auto, cpu, cuda or cuda:1")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        if device.index >= count:
            raise TrainingError(f"device {name}: torch finds {count} CUDA devices here; use cpu or auto")
    elif plan.precision == "16-mixed":
        raise TrainingError(
            "plan.precision: 16-mixed needs a CUDA device, whose losses it scales; on a CPU use 32 or bf16-mixed"
        )
    return device


def _checkpoint(folder: Path | None, recipe: Recipe) -> Path:
    """The checkpoint to go on from. Raises `TrainingError` if there is none, or one of another recipe."""
    file = None if folder is None else folder / CHECKPOINT
    if file is None or not file.exists():
        raise TrainingError(f"there is nothing to resume: no {file or CHECKPOINT}; fit from the start")
    try:
        before = Recipe.model_validate_json(torch.load(file, map_location="cpu", weights_only=True)["fit"]["recipe"])
    except (OSError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{file} can't be resumed from: {error}; fit from the start") from None
    free = dict.fromkeys(("steps", "minutes", "check_every", "patience", "min_gain", "max_skipped"))
    old, new = (each.model_copy(update={"plan": each.plan.model_copy(update=free)}) for each in (before, recipe))
    for name in ("features", "network", "horizons", "context", "data", "plan"):
        if getattr(old, name) != getattr(new, name):
            raise TrainingError(f"{file} is of a fit with another {name}: resume it with its own recipe, or start anew")
    return file


def _trainer(plan: FitPlan, device: torch.device, watch: FitWatch) -> Any:
    from lightning.pytorch import Trainer

    return Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" else 1,
        precision="32-true" if plan.precision == "32" else plan.precision,
        accumulate_grad_batches=plan.accumulate,
        max_epochs=-1,  # `FitWatch` says when it is over
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lightning's banners and advice."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`training_step` returned `None`")  # a skipped batch
            warnings.filterwarnings("ignore", r"`isinstance\(treespec", FutureWarning)  # lightning and torch's pytrees
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; only a second one interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
