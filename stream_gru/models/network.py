"""A network by configuration: each technique is a setting, and `compose` puts the blocks together."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stream_gru.models import cells
from stream_gru.models.block import Block
from stream_gru.models.blocks.attention import Attention
from stream_gru.models.blocks.bidirectional import Bidirectional
from stream_gru.models.blocks.chain import Chain
from stream_gru.models.blocks.convolution import Convolution
from stream_gru.models.blocks.dropout import Dropout
from stream_gru.models.blocks.members import Members
from stream_gru.models.blocks.multi_scale import SLOWEST, MultiScale
from stream_gru.models.blocks.norm import Norm
from stream_gru.models.blocks.residual import Residual
from stream_gru.models.blocks.transformer import Transformer
from stream_gru.models.blocks.zoneout import Zoneout
from stream_gru.models.cells import Cell


class Network(BaseModel):
    """What a network is made of. Windows are in readings; 0 leaves the technique out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cells: tuple[str, ...] = Field(
        ("gru",), min_length=1, max_length=16, description="gru, lstm, rnn; several are the members of an ensemble"
    )
    hidden: int = Field(64, ge=1, le=4096, description="units of a cell")
    layers: int = Field(1, ge=1, le=16, description="layers of cells, one on the other")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of units dropped between layers and before the head")
    zoneout: float = Field(0.0, ge=0, lt=1, description="chance that a unit of the state is kept as it was")
    norm: Literal["none", "layer", "batch"] = Field("none", description="normalisation of each layer's output")
    residual: bool = Field(False, description="each layer adds to its input")
    convolution: int = Field(0, ge=0, le=512, description="width of a causal convolution in front")
    attention: int = Field(0, ge=0, le=512, description="how many of the last hidden states attention looks back at")
    transformer: int = Field(0, ge=0, le=512, description="the window of a causal transformer block behind")
    heads: int = Field(4, ge=1, le=64, description="attention heads of the transformer block")
    scales: int = Field(
        1, ge=1, le=8, description="cells side by side that tick every 1, k, k^2... readings, k being scale_factor"
    )
    scale_factor: int = Field(4, ge=2, le=64, description="how many times slower each further cell ticks")
    bidirectional: int = Field(0, ge=0, le=512, description="the window that is read both ways at every reading")

    @field_validator("cells")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = cells.cells()
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"there is no cell {unknown[0]!r}; there are {', '.join(sorted(known))}")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> Network:
        if self.scales > 1 and self.bidirectional:
            raise ValueError("scales and bidirectional exclude each other")
        if self.scale_factor ** (self.scales - 1) > SLOWEST:
            raise ValueError(f"scales, scale_factor: the slowest cell may not wait for more than {SLOWEST} readings")
        width = self.hidden * (2 if self.bidirectional else self.scales)
        if self.transformer and width % self.heads:
            raise ValueError(f"heads: {self.heads} do not divide the {width} units that the transformer block sees")
        return self


def compose(network: Network, inputs: int) -> Block:
    """The network for `inputs` inputs, with initial weights. The outputs of an ensemble's members lie side by side."""
    members = [_member(network, name, inputs) for name in network.cells]
    return members[0] if len(members) == 1 else Members(members)


def _member(network: Network, name: str, inputs: int) -> Block:
    def cell(width: int) -> Cell:
        made = cells.find(name)(width, network.hidden)
        return Zoneout(made, network.zoneout) if network.zoneout else made

    def layer(width: int) -> Block:
        core: Block
        if network.scales > 1:
            core = MultiScale(cell, width, network.scales, network.scale_factor)
        elif network.bidirectional:
            core = Bidirectional(cell, width, network.bidirectional)
        else:
            core = cell(width)
        if network.norm != "none":
            core = Chain([core, Norm(core.output_size, network.norm)])
        return Residual(core) if network.residual else core

    blocks: list[Block] = []

    def width() -> int:
        return blocks[-1].output_size if blocks else inputs

    def add(block: Block) -> None:
        blocks.append(block)
        if network.dropout:
            blocks.append(Dropout(block.output_size, network.dropout))

    if network.convolution:
        blocks.append(Convolution(width(), network.hidden, network.convolution))
    for _ in range(network.layers):
        add(layer(width()))
    if network.attention:
        add(Attention(width(), network.attention))
    if network.transformer:
        add(Transformer(width(), network.transformer, network.heads, network.dropout))
    return blocks[0] if len(blocks) == 1 else Chain(blocks)


VARIANTS: dict[str, Network] = {
    "gru": Network(),
    "lstm": Network(cells=("lstm",)),
    "rnn": Network(cells=("rnn",)),
    "stacked": Network(layers=2, dropout=0.1),
    "layer-norm": Network(norm="layer"),
    "batch-norm": Network(norm="batch"),
    "residual": Network(layers=2, norm="layer", residual=True),
    "zoneout": Network(zoneout=0.1),
    "attention": Network(attention=32),
    "convolutional": Network(convolution=5),
    "transformer": Network(hidden=48, transformer=32),
    "multi-scale": Network(scales=3),
    "bidirectional": Network(hidden=32, bidirectional=16),
    "mixed": Network(cells=("gru", "lstm")),
    "ensemble": Network(hidden=48, cells=("gru",) * 5),
}
"""Named networks to begin with: each shows one technique."""
