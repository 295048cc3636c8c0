"""What lightning drives: one step of truncated backpropagation through time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stream_gru.errors import TrainingError
from stream_gru.models.blocks.members import Members
from stream_gru.models.cells import Cell, Scheme
from stream_gru.models.forecaster import Forecaster
from stream_gru.training import objective
from stream_gru.training.guard import StepGuard
from stream_gru.training.portions import Portion
from stream_gru.training.recipe import Recipe
from stream_gru.training.schedules import Schedule

try:
    from lightning.pytorch import LightningModule
except ImportError:
    raise TrainingError("fitting a model needs the `training` extra: pip install 'stream-gru[training]'") from None

_BETAS = (0.9, 0.98)  # of AdamW: a second moment that forgets sooner, as the rate of the loss changes with the series
_LOSS_RATE = 0.05  # what a new loss counts in the running mean


class Learner(LightningModule):
    """A forecaster that learns from `Portion`s, each as far back as it goes (Williams and Peng 1990).

    The state is carried from a chunk of a window to the next, without its gradient.
    """

    def __init__(self, forecaster: Forecaster, recipe: Recipe) -> None:
        super().__init__()
        self.forecaster, self.recipe, self.plan = forecaster, recipe, recipe.plan
        self.guard = StepGuard(forecaster, self.plan.max_skipped)
        self.schedule = Schedule(self.plan)
        self.progress = 0.0  # 0-1, of the fit
        self.step = 0  # optimiser steps
        self.readings = 0
        self.loss = float("nan")  # running mean, of a member
        self.rate = 0.0  # of the last step
        self.norms: list[float] = []  # of the gradient before clipping, one a step since they were last taken away
        self.watched = False  # whether `gradients` are to be kept at the next step
        self.gradients: dict[str, float] = {}  # the norm for each parameter, before clipping
        self._states: dict[int, Tensor] = {}
        self._members = members(forecaster)
        self._spoiled = False  # the last portion was skipped

    def training_step(self, portion: Portion, index: int) -> Tensor | None:
        """The loss of a chunk; None if it is not finite, and then nothing is learned from it."""
        carried = self._states.pop(portion.slot, None)
        before = None
        if portion.follows and carried is not None:
            before = carried.to(portion.prepared.x.device)  # a checkpoint may have been written on another
        self.guard.remember()
        forecast, after = objective.run(self.forecaster, portion.prepared, before)
        loss = objective.loss(self.forecaster, forecast, portion.prepared)
        self._spoiled = not self.guard.admits(loss)
        if self._spoiled:
            return None
        self._states[portion.slot] = after.detach()
        self.readings += int(portion.prepared.length.sum())
        value = loss.item() / self.forecaster.size
        self.loss = self.loss + _LOSS_RATE * (value - self.loss) if self.loss == self.loss else value
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW (Loshchilov and Hutter 2019); biases and gains, which are vectors, don't decay."""
        matrices: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for parameter in self.forecaster.parameters():
            (matrices if parameter.ndim > 1 and min(parameter.shape) > 1 else vectors).append(parameter)
        groups = [
            {"params": matrices, "weight_decay": self.plan.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, self.plan.learning_rate, betas=_BETAS)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Clip by norm (Pascanu et al. 2013), each member as if it were alone; gradients come unscaled.

        Members of an ensemble don't meet anywhere else, so each is fitted as it would be without the others.
        """
        self.rate = self.plan.learning_rate * self.schedule.factor(self.step, self.progress)
        for group in optimizer.param_groups:
            group["lr"] = self.rate
        self.step += 1
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and self._spoiled:
            return  # lightning neither unscales nor uses what the other portions of this step left
        if self.watched:
            self.gradients = norms_of(self.forecaster, gradient=True)
        parts = [nn.utils.clip_grad_norm_(member, self.plan.clip) for member in self._members]
        norm = torch.linalg.vector_norm(torch.stack(parts))
        if scaler is not None and not norm.isfinite() and scaler.get_scale() > 1:
            return  # the scale of the loss was too large, not the gradient: the scaler skips the step and lowers it
        if self.guard.checks(norm, self.forecaster.parameters()):
            self.norms.append(norm.item())
        else:
            self._states.clear()

    def transfer_batch_to_device(self, batch: Portion, device: torch.device, dataloader_idx: int) -> Portion:
        """It is there already."""
        return batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What lightning doesn't know of: the counters, the schedule, the states that are carried, the dice."""
        checkpoint["fit"] = {
            **{name: getattr(self, name) for name in _COUNTERS},
            "recipe": self.recipe.model_dump_json(),
            "skipped": self.guard.skipped,
            "schedule": self.schedule.state(),
            "states": dict(self._states),
            "random": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        kept = checkpoint["fit"]
        for name in _COUNTERS:
            setattr(self, name, kept[name])
        self.guard.skipped = kept["skipped"]
        self.schedule.restore(kept["schedule"])
        self._states = dict(kept["states"])
        torch.set_rng_state(kept["random"].cpu())
        if kept["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(kept["cuda"].cpu(), self.device)


_COUNTERS = ("progress", "step", "readings", "loss", "rate", "norms", "watched")


def initialise(forecaster: Forecaster, scheme: Scheme) -> None:
    """Draw the weights of every cell anew; those of the other blocks and the heads are as they were made."""
    for module in forecaster.modules():
        if isinstance(module, Cell):
            module.initialise(scheme)


def members(forecaster: Forecaster) -> list[list[nn.Parameter]]:
    """The parameters of each member of an ensemble: its part of the network and its head."""
    network = forecaster.network
    parts = network.blocks if isinstance(network, Members) else [network]
    return [[*part.parameters(), *head.parameters()] for part, head in zip(parts, forecaster.heads, strict=True)]


def norms_of(forecaster: Forecaster, *, gradient: bool = False) -> dict[str, float]:
    """The norm of each parameter, or of its gradient."""
    named = {
        name: parameter.grad if gradient else parameter.detach() for name, parameter in forecaster.named_parameters()
    }
    return {name: tensor.norm().item() if tensor is not None else 0.0 for name, tensor in named.items()}
