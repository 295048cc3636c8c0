"""What fits of a few seconds need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def seen() -> Iterator[list[dict[int, Tensor]]]:
    """The gradients that the optimiser saw in each of its steps, by the number of the parameter."""
    steps: list[dict[int, Tensor]] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        steps.append({i: p.grad.clone() for i, p in enumerate(parameters) if p.grad is not None})

    handle = register_optimizer_step_post_hook(note)
    yield steps
    handle.remove()
