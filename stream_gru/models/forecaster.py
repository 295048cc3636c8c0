"""From what the row knows to quantiles of the next value: inputs -> network -> a head for each member."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stream_gru import features
from stream_gru.models.network import Network, compose

QUANTILES = (0.5, 0.05, 0.95)  # the median and the central 90% interval
_LARGEST = 12.0  # sinh of it, in units, is the farthest that a quantile leaves the anchors: 80,000


class Forecaster(nn.Module):
    """Mixes the anchors by softmax and adds quantiles in units of the best anchor's error.

    With little to go by the mixture is close to the anchor that has done best, so that a series is forecast sensibly
    from its first readings. The members of an ensemble have a head each; their forecasts are averaged, and how far
    their medians lie apart is the spread (Lakshminarayanan et al. 2017).
    """

    def __init__(self, network: Network, horizons: Sequence[int], extras: int = 0) -> None:
        """`horizons` are the farther steps, beside the next one, that are forecast; `extras` the inputs of the
        context."""
        super().__init__()
        self.steps = (1, *horizons)
        self.network = compose(network, features.INPUTS + extras)
        size, outputs = len(network.cells), len(self.steps) * (features.ANCHORS + len(QUANTILES))
        self._linear = [nn.Linear(self.network.output_size // size, outputs) for _ in range(size)]
        self.heads = nn.ModuleList(self._linear)
        for weight in self.heads.parameters():
            nn.init.zeros_(weight) if weight.ndim == 1 else nn.init.normal_(weight, std=0.01)
        reach = torch.ones(len(self.steps), features.ANCHORS - 1, 1)
        reach[:, -len(features.TRENDS) :, 0] = torch.tensor(self.steps, dtype=torch.float32)[:, None]
        self.reach: Tensor
        self.sides: Tensor
        self.register_buffer("sides", torch.tensor([0.0, -1.0, 1.0])[:, None], persistent=False)
        self.register_buffer("reach", reach, persistent=False)

    @property
    def size(self) -> int:
        """M, the members."""
        return len(self.heads)

    def forecast(self, output: Tensor, moves: Tensor, unit: Tensor) -> tuple[Tensor, Tensor | None]:
        """output (N, M H), `features.moves` (A - 1, N), unit (1, N) -> forecasts (1 + K, 3, N): median, lower, upper
        at each step, and how far the members' medians are apart, a standard deviation (1 + K, N); None for one alone.

        All of them are relative to the last value, which is the first anchor.
        """
        members = self.members(output, moves, unit)
        if len(members) == 1:
            return members[0], None
        return members.mean(0), members[:, :, 0].std(0)

    def members(self, output: Tensor, moves: Tensor, unit: Tensor) -> Tensor:
        """The forecasts of each member, (M, 1 + K, 3, N)."""
        anchored = moves * self.reach  # (1 + K, A - 1, N)
        parts = zip(self._linear, output.chunk(self.size, 1), strict=True)
        return torch.stack([self._quantiles(head, part, anchored, unit) for head, part in parts])

    def _quantiles(self, head: nn.Linear, output: Tensor, anchored: Tensor, unit: Tensor) -> Tensor:
        out = torch.addmm(head.bias[:, None], head.weight, output.T)
        out = out.view(len(self.steps), features.ANCHORS + len(QUANTILES), -1)
        weights = out[:, : features.ANCHORS].softmax(1)
        centre = (weights[:, 1:] * anchored).sum(1, keepdim=True)  # (1 + K, 1, N)
        own = out[:, features.ANCHORS :]  # the median, and how far the others lie from it
        quantiles = torch.addcmul(own[:, :1], nn.functional.softplus(own), self.sides).clamp(-_LARGEST, _LARGEST)
        return torch.addcmul(centre, quantiles.sinh(), unit)
