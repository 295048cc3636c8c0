"""Blocks around cells: what each one does, and that a network has it where its settings say so."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from stream_gru.models.blocks.chain import Chain
from stream_gru.models.blocks.dropout import Dropout
from stream_gru.models.blocks.group import Group, merge
from stream_gru.models.blocks.members import Members
from stream_gru.models.blocks.norm import Norm
from stream_gru.models.blocks.residual import Residual
from stream_gru.models.blocks.zoneout import Zoneout
from stream_gru.models.cells import Cell
from stream_gru.models.cells.gru import GRU
from stream_gru.models.cells.lstm import LSTM
from stream_gru.models.cells.rnn import RNN
from stream_gru.models.network import Network, compose

INPUTS, HIDDEN, SERIES, TIME = 5, 8, 6, 40
Kind = TypeVar("Kind", bound=nn.Module)


def inputs(time: int = TIME, width: int = INPUTS) -> Tensor:
    return torch.randn(time, SERIES, width)


def every(block: nn.Module, kind: type[Kind]) -> list[Kind]:
    return [module for module in block.modules() if isinstance(module, kind)]


class TestChain:
    @torch.no_grad()
    def test_the_output_of_one_is_the_input_of_the_next(self) -> None:
        first, second = LSTM(INPUTS, HIDDEN), GRU(HIDDEN, 3)
        chain, x = Chain([first, second]), inputs()
        middle, one = first.unroll(x, first.initial_state(SERIES))
        expected, two = second.unroll(middle, second.initial_state(SERIES))
        outputs, state = chain.unroll(x, chain.initial_state(SERIES))
        torch.testing.assert_close(outputs, expected)
        assert torch.equal(state, torch.cat([one, two], 1))
        assert (chain.input_size, chain.state_size, chain.output_size) == (INPUTS, 2 * HIDDEN + 3, 3)

    @torch.no_grad()
    def test_the_gates_of_its_layers_lie_side_by_side(self) -> None:
        first, second = GRU(INPUTS, HIDDEN), GRU(HIDDEN, 3)
        chain, x = Chain([first, Dropout(HIDDEN, 0.5), second]).eval(), inputs(1)[0]
        state = torch.randn(SERIES, chain.state_size)
        gates = chain.gates(x, state)
        one, two = torch.split(state, [HIDDEN, 3], 1)
        below = first.step(x, one)[0]
        for name in ("update", "reset"):
            expected = torch.cat([first.gates(x, one)[name], second.gates(below, two)[name]], 1)
            assert torch.equal(gates[name], expected)

    def test_blocks_without_memory_alone(self) -> None:
        chain = Chain([Dropout(INPUTS, 0.5), Norm(INPUTS, "layer")])
        assert chain.initial_state(SERIES).shape == (SERIES, 0)

    def test_merging_keeps_what_only_some_have(self) -> None:
        one, two = torch.zeros(SERIES, 2), torch.ones(SERIES, 3)
        merged = merge([{"update": one}, {}, {"update": two, "forget": two}])
        assert torch.equal(merged["update"], torch.cat([one, two], 1))
        assert torch.equal(merged["forget"], two)


class TestMembers:
    @torch.no_grad()
    def test_each_is_as_it_would_be_alone(self) -> None:
        gru, lstm, x = GRU(INPUTS, HIDDEN), LSTM(INPUTS, 3), inputs()
        members = Members([gru, lstm])
        outputs, state = members.unroll(x, members.initial_state(SERIES))
        one, two = (part.unroll(x, part.initial_state(SERIES)) for part in (gru, lstm))
        assert torch.equal(outputs, torch.cat([one[0], two[0]], 2))
        assert torch.equal(state, torch.cat([one[1], two[1]], 1))
        gates = members.gates(x[0], state)
        assert {name: values.shape[1] for name, values in gates.items()} == {
            "update": HIDDEN,
            "reset": HIDDEN,
            "input": 3,
            "forget": 3,
            "output": 3,
        }

    @torch.no_grad()
    def test_none_touches_another(self) -> None:
        members, x = Members([GRU(INPUTS, HIDDEN) for _ in range(3)]), inputs()
        state = members.initial_state(SERIES).clone()
        outputs, _ = members.unroll(x, state)
        state[:, HIDDEN : 2 * HIDDEN] = torch.nan
        broken, _ = members.unroll(x, state)
        assert broken[..., HIDDEN : 2 * HIDDEN].isnan().all()
        for healthy in (slice(HIDDEN), slice(2 * HIDDEN, None)):
            assert torch.equal(broken[..., healthy], outputs[..., healthy])

    def test_they_begin_from_different_weights(self) -> None:
        network = compose(Network(hidden=HIDDEN, cells=("gru",) * 3), INPUTS)
        outputs, _ = network.unroll(inputs(), network.initial_state(SERIES))
        for one, other in pairwise(outputs.chunk(3, 2)):
            assert (one - other).abs().max() > 0.01


class TestDropout:
    def test_in_training_a_share_is_dropped_and_the_rest_scaled(self) -> None:
        dropped = Dropout(100, 0.3)(torch.ones(500, 100))
        assert abs((dropped == 0).float().mean() - 0.3) < 0.01
        torch.testing.assert_close(dropped[dropped != 0], torch.full(((dropped != 0).sum().item(),), 1 / 0.7))

    def test_otherwise_nothing_is(self) -> None:
        x = torch.randn(500, 100)
        assert torch.equal(Dropout(100, 0.3).eval()(x), x)

    def test_a_network_drops_between_layers_and_before_the_head(self, monkeypatch: pytest.MonkeyPatch) -> None:
        network, x = compose(Network(hidden=64, layers=2, dropout=0.4), INPUTS), inputs()
        seen: list[Tensor] = []
        first, second = every(network, Cell)
        unroll = second.unroll

        def watched(x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(x)
            return unroll(x, state)

        monkeypatch.setattr(second, "unroll", watched)
        outputs, state = network.unroll(x, network.initial_state(SERIES))
        assert abs((seen[0] == 0).float().mean() - 0.4) < 0.03
        assert abs((outputs == 0).float().mean() - 0.4) < 0.03
        _, kept = first.unroll(x, first.initial_state(SERIES))
        assert torch.equal(state[:, :64], kept)  # the way from state to state is never cut
        outputs, _ = network.eval().unroll(x, network.initial_state(SERIES))
        assert outputs.all()
        assert seen[1].all()

    def test_a_single_layer_drops_before_the_head(self) -> None:
        network = compose(Network(hidden=64, dropout=0.4), INPUTS)
        outputs, _ = network.unroll(inputs(), network.initial_state(SERIES))
        assert abs((outputs == 0).float().mean() - 0.4) < 0.03


class TestNorm:
    @torch.no_grad()
    def test_layer_norm_is_over_the_units_of_a_reading(self) -> None:
        x = 5 + 3 * inputs(width=64)
        normed = Norm(64, "layer")(x)
        torch.testing.assert_close(normed.mean(-1), torch.zeros(TIME, SERIES), rtol=0, atol=1e-5)
        torch.testing.assert_close(normed.var(-1, correction=0), torch.ones(TIME, SERIES), rtol=0, atol=1e-3)

    def test_batch_norm_in_training_is_over_all_readings_and_series(self) -> None:
        x = 5 + 3 * inputs()
        normed, _ = Norm(INPUTS, "batch").unroll(x, torch.empty(SERIES, 0))
        flat = normed.detach().flatten(0, 1)
        torch.testing.assert_close(flat.mean(0), torch.zeros(INPUTS), rtol=0, atol=1e-5)
        torch.testing.assert_close(flat.var(0, correction=0), torch.ones(INPUTS), rtol=0, atol=1e-3)

    @torch.no_grad()
    def test_batch_norm_streams_by_the_statistics_of_training(self) -> None:
        norm = Norm(INPUTS, "batch")
        for _ in range(200):
            norm(5 + 3 * inputs())
        norm.eval()
        before = {name: value.clone() for name, value in norm.state_dict().items()}
        x = torch.full((1, INPUTS), 8.0)  # one series alone, one deviation above the mean
        output, _ = norm.step(x, torch.empty(1, 0))
        torch.testing.assert_close(output, torch.ones(1, INPUTS), rtol=0, atol=0.1)
        assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())

    @torch.no_grad()
    def test_one_reading_alone_is_normed_by_the_running_statistics_in_training_too(self) -> None:
        """What is left of a batch when all other sequences have ended may be so small."""
        norm, x = Norm(INPUTS, "batch"), inputs()
        for _ in range(200):
            norm(5 + 3 * inputs())
        before = {name: value.clone() for name, value in norm.state_dict().items()}
        trained, _ = norm.unroll(x[:1, :1], torch.empty(1, 0))
        assert torch.equal(trained, norm.eval()(x[:1, :1]))
        assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())

    @torch.no_grad()
    @pytest.mark.parametrize("kind", ["layer", "batch"])
    def test_a_network_norms_each_layer(self, kind: str) -> None:
        network = compose(Network.model_validate({"hidden": HIDDEN, "layers": 2, "norm": kind}), INPUTS)
        assert len(every(network, Norm)) == 2
        outputs, _ = network.unroll(inputs(), network.initial_state(SERIES))
        over = 2 if kind == "layer" else (0, 1)
        assert outputs.mean(over).abs().max() < 1e-5
        assert (outputs.var(over, correction=0) - 1).abs().max() < 0.05


class TestResidual:
    @torch.no_grad()
    def test_the_input_is_added(self) -> None:
        cell, x = GRU(HIDDEN, HIDDEN), inputs(width=HIDDEN)
        block = Residual(cell)
        expected, last = cell.unroll(x, cell.initial_state(SERIES))
        outputs, state = block.unroll(x, block.initial_state(SERIES))
        assert torch.equal(outputs, x + expected)
        assert torch.equal(state, last)
        assert not list(block.shortcut.parameters())

    @torch.no_grad()
    def test_the_input_is_projected_where_the_widths_differ(self) -> None:
        cell, x = GRU(INPUTS, HIDDEN), inputs()
        block = Residual(cell)
        weights = dict(block.shortcut.named_parameters())
        assert {name: weight.shape for name, weight in weights.items()} == {"weight": (HIDDEN, INPUTS)}
        expected, _ = cell.unroll(x, cell.initial_state(SERIES))
        outputs, _ = block.unroll(x, block.initial_state(SERIES))
        torch.testing.assert_close(outputs, x @ weights["weight"].T + expected)

    def test_a_network_has_it_around_each_layer(self) -> None:
        network = compose(Network(hidden=HIDDEN, layers=3, residual=True, norm="layer"), INPUTS)
        around = every(network, Residual)
        assert [len(list(block.shortcut.parameters())) for block in around] == [1, 0, 0]
        assert all(every(block, Norm) for block in around)


class TestZoneout:
    @torch.no_grad()
    @pytest.mark.parametrize("inner", [GRU, LSTM, RNN])
    def test_in_training_a_unit_is_kept_with_the_set_probability(self, inner: type[Cell]) -> None:
        cell = inner(INPUTS, 64)
        zoneout, series = Zoneout(cell, 0.3), 500
        x, state = torch.randn(series, INPUTS), torch.randn(series, cell.state_size)
        moved = cell.step(x, state)[1]
        output, kept = zoneout.step(x, state)
        stayed = kept == state
        assert torch.equal(torch.where(stayed, state, moved), kept)  # a unit is kept, or it moves as it would have
        for part in torch.split(stayed, 64, 1):  # h, and c of an LSTM
            assert abs(part.float().mean() - 0.3) < 0.01
            assert (part.float().mean(0) - 0.3).abs().max() < 0.1  # no unit is favoured
        assert torch.equal(output, kept[:, :64])

    @torch.no_grad()
    @pytest.mark.parametrize("inner", [GRU, LSTM, RNN])
    def test_in_inference_it_takes_the_expectation(self, inner: type[Cell]) -> None:
        cell = inner(INPUTS, HIDDEN)
        zoneout = Zoneout(cell, 0.3).eval()
        x, state = torch.randn(SERIES, INPUTS), torch.randn(SERIES, cell.state_size)
        expected = 0.3 * state + 0.7 * cell.step(x, state)[1]
        torch.testing.assert_close(zoneout.step(x, state)[1], expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(zoneout.unroll(x[None], state)[1], expected, rtol=0, atol=1e-6)

    @torch.no_grad()
    def test_units_are_drawn_anew_at_each_reading(self) -> None:
        zoneout, x = Zoneout(GRU(INPUTS, 64), 0.5), inputs()
        outputs, _ = zoneout.unroll(x, zoneout.initial_state(SERIES))
        stayed = outputs[1:] == outputs[:-1]
        assert abs(stayed.float().mean() - 0.5) < 0.02
        both = (stayed[1:] & stayed[:-1]).float().mean()
        assert abs(both - 0.25) < 0.02

    def test_it_has_the_weights_of_its_cell_and_no_other(self) -> None:
        cell = GRU(INPUTS, HIDDEN)
        zoneout = Zoneout(cell, 0.3)
        assert [id(weight) for weight in zoneout.parameters()] == [id(weight) for weight in cell.parameters()]
        nn.init.normal_(cell.start)
        assert torch.equal(zoneout.initial_state(SERIES), cell.initial_state(SERIES))
        zoneout.initialise("uniform")
        assert not cell.start.any()
        assert cell.input_bias.any()

    def test_the_gates_are_the_cells(self) -> None:
        cell, x, state = GRU(INPUTS, HIDDEN), torch.randn(SERIES, INPUTS), torch.randn(SERIES, HIDDEN)
        expected = cell.gates(x, state)
        assert all(torch.equal(gate, expected[name]) for name, gate in Zoneout(cell, 0.3).gates(x, state).items())

    def test_a_network_has_it_around_each_cell(self) -> None:
        network = compose(Network(hidden=HIDDEN, layers=2, zoneout=0.2), INPUTS)
        assert [block.rate for block in every(network, Zoneout)] == [0.2, 0.2]


def test_a_network_finds_every_cell_to_initialise() -> None:
    spec = Network(hidden=HIDDEN, cells=("gru", "lstm"), layers=2, zoneout=0.1, scales=2, residual=True, norm="layer")
    network = compose(spec, INPUTS)
    inner = [cell for cell in every(network, Cell) if not isinstance(cell, Zoneout)]
    assert len(inner) == 2 * 2 * 2  # members, layers, scales
    for weight in network.parameters():
        nn.init.constant_(weight, 7.0)
    for cell in every(network, Cell):
        cell.initialise("uniform")
    for cell in inner:
        assert all((weight != 7).all() for weight in cell.parameters())


def test_groups_split_what_they_join() -> None:
    group = Group([GRU(INPUTS, 2), Dropout(2, 0.1), LSTM(2, 3)])
    state = torch.randn(SERIES, group.state_size)
    assert [part.shape[1] for part in group.split(state)] == [2, 0, 6]
    assert torch.equal(group.join(group.split(state)), state)
