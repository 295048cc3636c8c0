"""From what the row knows to quantiles of coming values: inputs -> network -> a head for each member."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stream_gru import features
from stream_gru.features import FeatureView
from stream_gru.models.heads import Head, LinearHead, SharedHead
from stream_gru.models.network import Network, compose

BAND = (0.5, 0.05, 0.95)  # median and central 90% interval


class Forecaster(nn.Module):
    """Features, the network, and the heads.

    The members of an ensemble have a head each; their forecasts are averaged, and how far their medians lie apart is
    the spread (Lakshminarayanan et al. 2017).
    """

    def __init__(
        self, network: Network, horizons: Sequence[int], extras: int = 0, kind: features.Kind = "light"
    ) -> None:
        """`horizons` are the farther steps, beside the next one, that are forecast; `extras` the inputs of the
        context; `kind` the set of features, of which experts have heads for any step."""
        super().__init__()
        self.steps = (1, *horizons)
        self.ahead: Tensor  # the same, as heads take them
        self.register_buffer("ahead", torch.tensor(self.steps, dtype=torch.float32)[:, None], persistent=False)
        self.features = features.find(kind)
        self.network = compose(network, self.features.inputs + extras)
        size = len(network.cells)
        width = self.network.output_size // size
        self._heads: list[Head] = [
            SharedHead(width, self.features) if kind == "experts" else LinearHead(width, self.features, self.steps)
            for _ in range(size)
        ]
        self.heads = nn.ModuleList(self._heads)
        self.levels = self._heads[0].levels
        self.band = [self.levels.index(level) for level in BAND]  # where a forecast has them

    @property
    def size(self) -> int:
        """M, the members."""
        return len(self.heads)

    @property
    def any_step(self) -> bool:
        """Whether other steps than `steps` can be asked for."""
        return isinstance(self._heads[0], SharedHead)

    def forecast(self, output: Tensor, view: FeatureView, steps: Tensor) -> tuple[Tensor, Tensor | None]:
        """output (N, M H) -> quantiles (S, Q, N) at `steps` (S, 1 or N), relative to the last value, and how far the
        members' medians are apart, a standard deviation (S, N); None for one alone."""
        members = self.members(output, view, steps)
        if len(members) == 1:
            return members[0], None
        return members.mean(0), members[:, :, self.band[0]].std(0)

    def members(self, output: Tensor, view: FeatureView, steps: Tensor) -> Tensor:
        """The forecasts of each member, (M, S, Q, N)."""
        parts = zip(self._heads, output.chunk(self.size, 1), strict=True)
        return torch.stack([head(part, view, steps) for head, part in parts])
