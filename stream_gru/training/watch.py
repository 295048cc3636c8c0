"""What is looked at while a fit goes on: held-back data, norms, the clock; and what is kept of it on disk."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from stream_gru.training import objective
from stream_gru.training.module import Learner, norms_of
from stream_gru.training.prepare import Prepared
from stream_gru.training.schedules import gains

CHECKPOINT = "last.ckpt"
CHECKS = "checks.csv"
NORMS = "norms.csv"
_NORMS_A_CHECK = 10  # rows of norms.csv


@dataclass(slots=True)
class FitProgress:
    """How far a fit has come, after each step."""

    step: int
    progress: float  # 0-1
    loss: float  # running mean
    readings: int
    seconds: float


@dataclass(slots=True)
class FitCheck:
    """One look at the held-back data."""

    step: int
    seconds: float
    readings: int
    loss: float  # of training, a running mean; of a member
    held_back: float  # loss of the members' averaged forecast
    learning_rate: float
    gradient_norm: float  # mean since the last check, before clipping
    weight_norm: float
    skipped: int
    error: list[float]  # for each step ahead, of the last value's
    coverage: list[float]


class FitWatch(Callback):
    """Looks every so many steps, ends the fit when it is time, keeps the best weights."""

    def __init__(
        self,
        learner: Learner,
        held_back: Prepared,
        *,
        folder: Path | None,
        tell: Callable[[FitProgress], None],
        stop: Callable[[FitCheck], bool] | None,
        interrupted: Callable[[], bool],
    ) -> None:
        self._learner, self._held_back, self._plan = learner, held_back, learner.plan
        self._folder, self._tell, self._stop, self._interrupted = folder, tell, stop, interrupted
        self._minutes = self._plan.minutes or (None if self._plan.steps else 8.0)
        self._norms_every = max(1, self._plan.check_every // _NORMS_A_CHECK)
        self._before = 0.0  # seconds until the last interruption
        self._began = 0.0
        self._told = 0  # the last step that was reported
        self.checks: list[FitCheck] = []
        self.stopped = ""
        self.before = objective.evaluate(learner.forecaster, held_back)
        self.quality = self.before
        self._best = self.before.loss
        self._weights = self._copy()
        self._last_gain = 0  # the number of the check that gained enough; 0: the look before the fit
        self._bar = self.before.loss  # what is to be fallen below by `min_gain`

    @property
    def seconds(self) -> float:
        """Since the fit began, without the time between an interruption and its resumption."""
        return self._before + time.monotonic() - self._began

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin the logs, or go on with them."""
        self._told = self._learner.step
        self._open_logs()
        self._measure()
        trainer.should_stop = self._over()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """After each portion; something happens if it was the last of a step."""
        learner = self._learner
        if learner.step == self._told:
            return
        self._told = learner.step
        self._measure()
        self._tell(FitProgress(learner.step, learner.progress, learner.loss, learner.readings, self.seconds))
        if learner.gradients:
            self._log_norms()
        learner.watched = self._folder is not None and (learner.step + 1) % self._norms_every == 0
        over, interrupted = self._over(), self._interrupted()
        if over or learner.step % self._plan.check_every == 0:
            self._check()
            over = over or bool(self.stopped)
        if self._folder is not None and (over or interrupted or learner.step % self._plan.check_every == 0):
            trainer.save_checkpoint(self._folder / CHECKPOINT)
        trainer.should_stop = over or interrupted

    def restore_best(self) -> None:
        """Give the forecaster the weights that did best on the held-back data."""
        self._learner.forecaster.load_state_dict(self._weights)

    def _measure(self) -> None:
        by_steps = self._learner.step / self._plan.steps if self._plan.steps else 0.0
        by_time = self.seconds / (self._minutes * 60) if self._minutes else 0.0
        self._learner.progress = min(1.0, max(by_steps, by_time))

    def _over(self) -> bool:
        if self._learner.progress < 1:
            return False
        self.stopped = "steps" if self._plan.steps and self._learner.step >= self._plan.steps else "time"
        return True

    def _check(self) -> None:
        learner = self._learner
        quality = objective.evaluate(learner.forecaster, self._held_back)
        norms = learner.norms
        check = FitCheck(
            learner.step,
            self.seconds,
            learner.readings,
            learner.loss,
            quality.loss,
            learner.rate,
            sum(norms) / len(norms) if norms else math.nan,
            math.hypot(*norms_of(learner.forecaster).values()),
            learner.guard.skipped,
            quality.error,
            quality.coverage,
        )
        learner.norms = []
        learner.schedule.look(learner.step, quality.loss)
        self.checks.append(check)
        if gains(quality.loss, self._best, 0.0):
            self._best, self.quality, self._weights = quality.loss, quality, self._copy()
        if gains(quality.loss, self._bar, self._plan.min_gain):
            self._bar, self._last_gain = quality.loss, len(self.checks)
        if self._folder is not None:
            _append(self._folder / CHECKS, _row(check))
        patient = self._plan.patience is None or len(self.checks) - self._last_gain < self._plan.patience
        if self._stop is not None and self._stop(check) and not self.stopped:
            self.stopped = "pruned"
        if not patient and not self.stopped:
            self.stopped = "patience"

    def _copy(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._learner.forecaster.state_dict().items()}

    def _open_logs(self) -> None:
        """New logs, or those of the interrupted fit up to its checkpoint."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(self._folder / CHECKS, [_row_names(self.before.steps), *(_row(check) for check in self.checks)])
        names = [name for name, _ in self._learner.forecaster.named_parameters()]
        columns = ["step", *(f"gradient.{name}" for name in names), *(f"weight.{name}" for name in names)]
        rows = _read(self._folder / NORMS) if self._learner.step else []
        if not self._learner.step:
            (self._folder / CHECKPOINT).unlink(missing_ok=True)  # of another fit, not to be resumed by mistake
        _write(self._folder / NORMS, [columns, *(row for row in rows[1:] if row and int(row[0]) <= self._learner.step)])

    def _log_norms(self) -> None:
        gradients, weights = self._learner.gradients, norms_of(self._learner.forecaster)
        if self._folder is not None:
            _append(self._folder / NORMS, [self._learner.step, *gradients.values(), *weights.values()])
        self._learner.gradients = {}

    @property
    def state_key(self) -> str:
        """What checkpoints call its state; it must stay, so that an older one can be gone on with."""
        return "Watch"

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "seconds": self.seconds,
            "checks": [asdict(check) for check in self.checks],
            "before": asdict(self.before),
            "quality": asdict(self.quality),
            "best": self._best,
            "bar": self._bar,
            "last_gain": self._last_gain,
            "weights": self._weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._before = state_dict["seconds"]
        self.checks = [FitCheck(**check) for check in state_dict["checks"]]
        self.before = objective.Quality(**state_dict["before"])
        self.quality = objective.Quality(**state_dict["quality"])
        self._best, self._bar = state_dict["best"], state_dict["bar"]
        self._last_gain, self._weights = state_dict["last_gain"], state_dict["weights"]


def _row_names(steps: tuple[int, ...]) -> list[str]:
    plain = [field.name for field in fields(FitCheck)][:-2]
    return [*plain, *(f"error {step}" for step in steps), *(f"coverage {step}" for step in steps)]


def _row(check: FitCheck) -> list[float]:
    *plain, error, coverage = (getattr(check, field.name) for field in fields(FitCheck))
    return [*plain, *error, *coverage]


def _write(file: Path, rows: list[Any]) -> None:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(rows)


def _append(file: Path, row: list[float]) -> None:
    with file.open("a", newline="") as out:
        csv.writer(out).writerow(row)


def _read(file: Path) -> list[list[str]]:
    if not file.exists():
        return []
    with file.open(newline="") as found:
        return list(csv.reader(found))
