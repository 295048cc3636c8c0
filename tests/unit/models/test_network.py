"""What a network's settings put together, and which are refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError
from torch import nn

from stream_gru.models.block import Block
from stream_gru.models.blocks.attention import Attention
from stream_gru.models.blocks.bidirectional import Bidirectional
from stream_gru.models.blocks.chain import Chain
from stream_gru.models.blocks.convolution import Convolution
from stream_gru.models.blocks.dropout import Dropout
from stream_gru.models.blocks.members import Members
from stream_gru.models.blocks.multi_scale import MultiScale
from stream_gru.models.blocks.norm import Norm
from stream_gru.models.blocks.residual import Residual
from stream_gru.models.blocks.transformer import Transformer
from stream_gru.models.blocks.zoneout import Zoneout
from stream_gru.models.cells.gru import GRU
from stream_gru.models.cells.lstm import LSTM
from stream_gru.models.cells.rnn import RNN
from stream_gru.models.network import VARIANTS, Network, compose

INPUTS = 5
ALL = (Attention, Bidirectional, Convolution, Dropout, MultiScale, Norm, Residual, Transformer, Zoneout, GRU, LSTM, RNN)


def parts(block: nn.Module) -> list[str]:
    """The techniques in it, each as often as it is there, in order."""
    return [type(part).__name__ for part in block.modules() if isinstance(part, ALL)]


SHOWN = {
    "gru": ["GRU"],
    "lstm": ["LSTM"],
    "rnn": ["RNN"],
    "stacked": ["GRU", "Dropout", "GRU", "Dropout"],
    "layer-norm": ["GRU", "Norm"],
    "batch-norm": ["GRU", "Norm"],
    "residual": ["Residual", "GRU", "Norm", "Residual", "GRU", "Norm"],
    "zoneout": ["Zoneout", "GRU"],
    "attention": ["GRU", "Attention"],
    "convolutional": ["Convolution", "GRU"],
    "transformer": ["GRU", "Transformer"],
    "multi-scale": ["MultiScale", "GRU", "GRU", "GRU"],
    "bidirectional": ["Bidirectional", "GRU", "GRU"],
    "mixed": ["GRU", "LSTM"],
    "ensemble": ["GRU"] * 5,
}


def test_each_variant_shows_its_technique() -> None:
    assert {name: parts(compose(network, INPUTS)) for name, network in VARIANTS.items()} == SHOWN


def test_everything_at_once_in_order() -> None:
    spec = Network(
        cells=("rnn", "lstm"),
        hidden=8,
        convolution=3,
        attention=4,
        transformer=4,
        zoneout=0.1,
        norm="layer",
        residual=True,
        dropout=0.3,
    )
    network = compose(spec, INPUTS)
    assert isinstance(network, Members)
    for member, cell in zip(network.blocks, ("RNN", "LSTM"), strict=True):
        assert isinstance(member, Chain)
        assert [type(block).__name__ for block in member.blocks] == [
            "Convolution",
            "Residual",
            "Dropout",
            "Attention",
            "Dropout",
            "Transformer",
            "Dropout",
        ]
        assert parts(member)[1:5] == ["Residual", "Zoneout", cell, "Norm"]
        assert {part.rate for part in member.modules() if isinstance(part, Dropout)} == {0.3}


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_fit_each_other(name: str) -> None:
    def fit(block: Block) -> None:
        if isinstance(block, Chain):
            for one, next_one in pairwise(block.blocks):
                assert one.output_size == next_one.input_size
        for part in block.children():
            if isinstance(part, Block):
                fit(part)

    network = compose(VARIANTS[name], INPUTS)
    fit(network)
    assert network.input_size == INPUTS
    assert network.output_size % len(VARIANTS[name].cells) == 0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"cells": ["mru"]}, "there is no cell 'mru'; there are gru, lstm, rnn"),
        ({"cells": []}, "at least 1 item"),
        ({"scales": 2, "bidirectional": 4}, "exclude each other"),
        ({"hidden": 10, "transformer": 8, "heads": 4}, "heads: 4 do not divide the 10 units"),
        ({"hidden": 3, "bidirectional": 4, "transformer": 8, "heads": 4}, "heads: 4 do not divide the 6 units"),
        ({"hidden": 3, "scales": 3, "transformer": 8, "heads": 4}, "heads: 4 do not divide the 9 units"),
        ({"scales": 8, "scale_factor": 16}, "scales, scale_factor: the slowest cell may not wait"),
        ({"zoneout": 1.0}, "less than 1"),
        ({"width": 8}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Network.model_validate(wrong)


def test_heads_divide_what_the_transformer_sees() -> None:
    """Not what a cell has."""
    for network in (Network(hidden=3, scales=4, transformer=8), Network(hidden=6, bidirectional=4, transformer=8)):
        assert compose(network, INPUTS).output_size == 12
