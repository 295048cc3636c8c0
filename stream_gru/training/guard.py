"""Losses and gradients that are not finite: what they would spoil is left as it was, up to a limit."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from stream_gru.errors import TrainingError


class StepGuard:
    """Counts what was skipped and puts batch-norm statistics back, which a forward pass alone may spoil."""

    def __init__(self, model: nn.Module, limit: int) -> None:
        """`limit` is how many may be skipped."""
        learned = {name for name, _ in model.named_parameters()}
        self._buffers = [tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in learned]
        self._before: list[Tensor] = []
        self._limit = limit
        self.skipped = 0

    def remember(self) -> None:
        """Call before a forward pass."""
        self._before = [buffer.clone() for buffer in self._buffers]

    def admits(self, loss: Tensor) -> bool:
        """Whether to learn from this loss; if not, the statistics are as before."""
        finite = bool(loss.isfinite())
        if not finite:
            self._skip("loss")
        return finite

    def checks(self, norm: Tensor, parameters: Iterable[nn.Parameter]) -> bool:
        """Whether to step with gradients of this norm; if not, there are none any more.

        An optimiser passes over parameters without a gradient: neither weights nor moments change.
        """
        finite = bool(norm.isfinite())
        if not finite:
            for parameter in parameters:
                parameter.grad = None
            self._skip("gradient")
        return finite

    @torch.no_grad()
    def _skip(self, what: str) -> None:
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)
        self.skipped += 1
        if self.skipped > self._limit:
            raise TrainingError(
                f"{self.skipped} batches had a loss or gradient that is not finite (plan.max_skipped = {self._limit}), "
                f"the last time a {what}: try a lower plan.learning_rate, a lower plan.clip, a longer plan.warm_up or "
                "plan.precision = '32', and look for infinite or huge values in the data"
            )
