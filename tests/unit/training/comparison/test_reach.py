"""How far back a network looks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stream_gru.models import bundle
from stream_gru.models.block import Block
from stream_gru.models.bundle import Description
from stream_gru.models.cells.gru import GRU
from stream_gru.models.network import VARIANTS, Network, compose
from stream_gru.training.comparison import cost
from stream_gru.training.comparison.reach import reach, sensitivity
from tests.support.comparing import batch, waves


class Decay(Block):
    """h' = rate h + x: a linear recurrent network of one unit, which forgets at a known rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.input_size = self.state_size = self.output_size = 1
        self.rate = rate

    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.rate * state + x
        return state, state


def test_a_linear_network_reaches_as_far_as_its_rate_says() -> None:
    curve = sensitivity(Decay(0.9), torch.randn(150, 5, 1), farthest=100)
    np.testing.assert_allclose(curve, 0.9 ** np.arange(101), rtol=1e-4)
    assert reach(curve) == 43  # 0.9^43 = 1.08%, 0.9^44 = 0.97%


def test_a_short_stretch_tells_less() -> None:
    assert len(sensitivity(Decay(0.5), torch.randn(20, 2, 1), farthest=100)) == 20


def test_an_echo_counts_from_where_it_comes() -> None:
    assert reach([0.1, 1.0, 0.001, 0.5, 0.009]) == 3
    assert reach([1.0, 0.5, 0.25]) == 2


@pytest.mark.parametrize(("bias", "least", "most"), [(10.0, 200, 200), (-10.0, 0, 8)])
def test_an_update_gate_that_keeps_reaches_far_and_one_that_replaces_does_not(
    bias: float, least: int, most: int
) -> None:
    torch.manual_seed(0)
    cell = GRU(3, 8)
    with torch.no_grad():
        cell.input_bias[8:16] = bias
    far = reach(sensitivity(cell, torch.randn(260, 4, 3)))
    assert least <= far <= most


def test_the_reach_is_that_of_inference() -> None:
    torch.manual_seed(0)
    network = compose(Network(hidden=8, dropout=0.9), 3)
    x = torch.randn(60, 4, 3)
    first, again = (sensitivity(network, x, farthest=30) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert network.training


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_a_cost_and_a_reach(name: str) -> None:
    torch.manual_seed(0)
    network = VARIANTS[name].model_copy(update={"hidden": 8})
    curve = sensitivity(compose(network, 3), torch.randn(24, 3, 3), farthest=20, looks=2)
    assert np.isfinite(curve).all()
    assert curve[0] > 0
    description = Description(name="x", network=network, horizons=(3,))
    forecaster = bundle.build(description)
    assert cost.activations(forecaster, batch(waves(), description, 2, 16)) > 0
    assert 0 < cost.cell_parameters(forecaster) < cost.parameters(forecaster)
    cost.streaming_step(forecaster, 2)()
