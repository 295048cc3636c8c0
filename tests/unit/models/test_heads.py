from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from stream_gru.features import Experts, FeatureSet, FeatureView, Light
from stream_gru.models.heads import Head, LinearHead, SharedHead

WIDTH, N, STEPS = 8, 5, torch.tensor([[1.0], [4], [30]])


def linear(kind: FeatureSet) -> Head:
    return LinearHead(WIDTH, kind, (1, 4, 30))


def shared(kind: FeatureSet) -> Head:
    return SharedHead(WIDTH, kind)


def view(kind: FeatureSet, steps: int = 3) -> FeatureView:
    torch.manual_seed(3)
    return FeatureView(torch.randn(kind.inputs, N), torch.randn(steps, kind.anchors - 1, N), torch.rand(1, N) + 0.1)


@pytest.mark.parametrize("kind", [Light, Experts])
@pytest.mark.parametrize("make", [linear, shared])
def test_quantiles_rise_at_every_step(make: Callable[[FeatureSet], Head], kind: type[FeatureSet]) -> None:
    torch.manual_seed(0)
    head = make(kind())
    made = head(torch.randn(N, WIDTH) * 10, view(kind()), STEPS)
    assert made.shape == (3, len(head.levels), N)
    assert bool((made.diff(dim=1) >= 0).all())
    assert list(head.levels) == sorted(head.levels)
    assert {0.05, 0.5, 0.95} <= set(head.levels)


def test_any_step_is_forecast_alone_as_among_others() -> None:
    torch.manual_seed(0)
    head, seen, output = shared(Experts()), view(Experts()), torch.randn(N, WIDTH)
    every = head(output, seen, STEPS)
    for k in (1, 2):
        some = FeatureView(seen.x, seen.moves[[0, k]], seen.unit)
        torch.testing.assert_close(head(output, some, STEPS[[0, k]])[1], every[k])
    torch.testing.assert_close(head(output, FeatureView(seen.x, seen.moves[:1], seen.unit), STEPS[:1])[0], every[0])
    own = STEPS.repeat(1, N)
    own[1, 2] = 9
    differing = head(output, seen, own)
    assert bool((differing[1, :, 2] != every[1, :, 2]).any())
    torch.testing.assert_close(differing[:, :, :2], every[:, :, :2])


def test_a_new_head_follows_the_anchors_that_have_done_best() -> None:
    kind = Experts()
    head, seen = SharedHead(WIDTH, kind), view(kind, 1)
    seen.x[kind.errors] = 3.0
    seen.x[kind.errors][4] = -1.0  # the fourth move
    made = head(torch.zeros(N, WIDTH), seen, STEPS[:1])
    torch.testing.assert_close(made[0, 6], seen.moves[0, 3], rtol=0.02, atol=0.02)


def test_a_new_head_begins_with_normal_intervals() -> None:
    kind = Experts()
    head, seen = SharedHead(WIDTH, kind), view(kind, 1)
    seen.moves.zero_()
    made = head(torch.zeros(N, WIDTH), seen, STEPS[:1])[0] / seen.unit
    expected = torch.tensor([-2.908, -2.056, 0, 2.056, 2.908])  # 1.25 mean absolute errors a deviation
    torch.testing.assert_close(made[[0, 1, 6, 11, 12]], expected[:, None].expand(-1, N), atol=0.01, rtol=0)
