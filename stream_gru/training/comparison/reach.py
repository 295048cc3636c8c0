"""How far back an output feels the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stream_gru.columns import Floats
from stream_gru.models.block import Block

FARTHEST = 200  # readings
FAINT_SHARE = 0.01  # of the largest: what lies below is not felt


def sensitivity(network: Block, x: Tensor, farthest: int = FARTHEST, looks: int = 4, seed: int = 0) -> Floats:
    """|d output_t / d input_(t - k)| for k = 0, 1, ... `farthest`, averaged over series and `looks` moments t.

    x is (T, n, D); a T of `farthest` or less makes it shorter. One backward pass a moment gives all k: the outputs are
    summed with random signs, so that the squares are those of the whole Jacobian on average (Hutchinson 1989). The
    network is taken in inference, without dropout, and alone: what its inputs remember by themselves, the smoothers of
    `features`, comes on top.
    """
    was_training = network.training
    network.eval()
    farthest = min(farthest, len(x) - 1)
    signs = torch.Generator().manual_seed(seed)
    moments = np.unique(np.linspace(farthest, len(x) - 1, looks).astype(int)).tolist()
    total = torch.zeros(farthest + 1, device=x.device)
    for moment in moments:
        first = moment - farthest
        with torch.no_grad():
            state = network.initial_state(x.shape[1])
            if first:
                _, state = network.unroll(x[:first], state)
        window = x[first : moment + 1].detach().clone().requires_grad_()
        output = network.unroll(window, state.detach())[0][-1]
        sign = torch.randint(0, 2, output.shape, generator=signs).to(output) * 2 - 1
        (slope,) = torch.autograd.grad((output * sign).sum(), window)
        total += slope.norm(dim=2).mean(1).flip(0)
    network.train(was_training)
    curve: Floats = (total / len(moments)).double().cpu().numpy()
    return curve


def reach(curve: Sequence[float] | Floats) -> int:
    """The farthest k whose sensitivity is at least 1% of the largest one. The last k of the curve: or farther."""
    strength = np.abs(np.asarray(curve, float))
    return int(np.flatnonzero(strength >= FAINT_SHARE * strength.max())[-1])
