"""Packing ignores padding: whatever stands there, each sequence comes out as if it were unrolled alone."""

from __future__ import annotations

import pytest
import torch

from stream_gru.models.network import VARIANTS, compose
from stream_gru.training import packing

LENGTHS = [7, 12, 1, 7, 0, 12, 3]
D = 5


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_unrolled_as_each_alone(name: str) -> None:
    torch.manual_seed(1)
    network = compose(VARIANTS[name], D).eval()
    x = torch.full((14, len(LENGTHS), D), torch.nan)
    for i, length in enumerate(LENGTHS):
        x[:length, i] = torch.randn(length, D)
    before = network.initial_state(len(LENGTHS)).detach()
    outputs, state = packing.unroll(network, x, before, torch.tensor(LENGTHS))
    assert outputs.shape == (14, len(LENGTHS), network.output_size)
    for i, length in enumerate(LENGTHS):
        assert not outputs[length:, i].any()
        if not length:
            torch.testing.assert_close(state[i], before[i])
            continue
        alone, last = network.unroll(x[:length, i : i + 1], before[i : i + 1])
        torch.testing.assert_close(outputs[:length, i], alone[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state[i], last[0], atol=1e-5, rtol=1e-5)


def test_no_gradient_comes_from_padding() -> None:
    network = compose(VARIANTS["gru"], D)
    x = torch.full((6, 2, D), torch.nan)
    x[:, 0], x[:2, 1] = 1.0, 2.0
    outputs, state = packing.unroll(network, x, network.initial_state(2), torch.tensor([6, 2]))
    (outputs.sum() + state.sum()).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    assert all(torch.isfinite(w.grad).all() for w in network.parameters() if w.grad is not None)
    assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in network.parameters())
