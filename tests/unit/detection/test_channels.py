"""The channels look both ways alike: upside down, what was above is below."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from stream_gru.detection import detector
from stream_gru.detection.channels import Direction

SERIES, READINGS = 8, 100
MIRRORED: dict[Direction, Direction] = {"both": "both", "above": "below", "below": "above"}


def follow(dx: Tensor, residual: Tensor, direction: Direction) -> Tensor:
    """Surprise and deviation (T, 2, N) of readings that came `dx` (T, N) after the last and `residual` off."""
    n = dx.shape[1]
    state = detector.DetectorState(*(torch.zeros(size, n) for size in detector.FIELDS.values()))
    constants, found = detector.Constants.on(direction=direction), []
    for t, (moved, off) in enumerate(zip(dx, residual, strict=True)):
        age = detector.Youth(*torch.from_numpy(detector.youth(np.full(n, t)))[:, None])
        evidence = detector.Evidence(off[None], moved[None], torch.full((1, n), 1e-6))
        said, state = detector.score(state, evidence, age, constants)
        found.append(said)
    return torch.stack(found)


@pytest.mark.parametrize("direction", get_args(Direction))
def test_a_series_upside_down_is_as_anomalous_in_the_other_direction(direction: Direction) -> None:
    torch.manual_seed(0)
    level = torch.randn(READINGS + 1, SERIES)
    level[80:, : SERIES // 2] += 8  # half of them go up, and stay
    level[90, SERIES // 2 :] -= 8
    dx, residual = level.diff(dim=0), level[1:] + 0.1 * torch.randn(READINGS, SERIES)
    one, other = follow(dx, residual, direction), follow(-dx, -residual, MIRRORED[direction])
    torch.testing.assert_close(other, one)
    largest = one[60:, 0].amax(0)
    up, down = largest[: SERIES // 2], largest[SERIES // 2 :]
    if direction != "both":
        watched, other_way = (up, down) if direction == "above" else (down, up)
        assert watched.min() > 2 * other_way.median()
