"""The cells against torch's own, at the corners of their gates, and as they are drawn."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from stream_gru.models.cells import Cell, find, tanh
from stream_gru.models.cells.gru import GRU
from stream_gru.models.cells.lstm import LSTM
from stream_gru.models.cells.rnn import RNN

INPUTS, HIDDEN, SERIES, TIME = 5, 8, 7, 30
OPEN, SHUT = 200.0, -200.0  # biases at which a sigmoid is 1 and 0


@torch.no_grad()
def gru_of(theirs: nn.Module) -> GRU:
    """The same GRU as torch's: it has a second bias for each gate, which adds up with the first."""
    (w, u, b, d), ours = list(theirs.parameters()), GRU(INPUTS, HIDDEN)
    ours.input_weights.copy_(w.T)
    ours.input_bias.copy_(b + torch.cat([d[: 2 * HIDDEN], torch.zeros(HIDDEN)]))
    ours.gate_weights.copy_(u[: 2 * HIDDEN].T)
    ours.candidate_weights.copy_(u[2 * HIDDEN :].T)
    ours.candidate_bias.copy_(d[2 * HIDDEN :])
    return ours


@torch.no_grad()
def lstm_of(theirs: nn.Module) -> LSTM:
    """The same LSTM as torch's, whose candidate comes third of the four."""
    order = torch.arange(4 * HIDDEN).view(4, HIDDEN)[[0, 1, 3, 2]].flatten()
    (w, u, b, d), ours = list(theirs.parameters()), LSTM(INPUTS, HIDDEN)
    ours.input_weights.copy_(w.T[:, order])
    ours.recurrent_weights.copy_(u.T[:, order])
    ours.bias.copy_((b + d)[order])
    return ours


@torch.no_grad()
def rnn_of(theirs: nn.Module) -> RNN:
    (w, u, b, d), ours = list(theirs.parameters()), RNN(INPUTS, HIDDEN)
    ours.input_weights.copy_(w.T)
    ours.recurrent_weights.copy_(u.T)
    ours.bias.copy_(b + d)
    return ours


PAIRS = {
    "gru": (nn.GRUCell, nn.GRU, gru_of),
    "lstm": (nn.LSTMCell, nn.LSTM, lstm_of),
    "rnn": (nn.RNNCell, nn.RNN, rnn_of),
}


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("training", [False, True])
def test_a_step_is_that_of_torch(name: str, training: bool) -> None:
    cell, _, convert = PAIRS[name]
    theirs = cell(INPUTS, HIDDEN)
    ours = convert(theirs)
    x, state = torch.randn(SERIES, INPUTS), torch.randn(SERIES, ours.state_size)
    with torch.set_grad_enabled(training):
        expected = theirs(x, tuple(state.chunk(2, 1)) if name == "lstm" else state)
        output, moved = ours.step(x, state)
    close(output, expected[0] if name == "lstm" else expected)
    close(moved, torch.cat(expected, 1) if name == "lstm" else expected)


@pytest.mark.parametrize("name", PAIRS)
def test_unroll_and_its_gradients_are_those_of_torch(name: str) -> None:
    _, layer, convert = PAIRS[name]
    theirs = layer(INPUTS, HIDDEN)
    ours = convert(theirs)
    x = torch.randn(TIME, SERIES, INPUTS)
    mine, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    outputs, last = ours.unroll(mine, ours.initial_state(SERIES))
    expected, end = theirs(reference)
    close(outputs, expected)
    close(last, torch.cat([part[0] for part in end], 1) if name == "lstm" else end[0])
    torch.autograd.backward([outputs.square().sum(), expected.square().sum()])
    assert mine.grad is not None
    assert reference.grad is not None
    torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def gru_with(reset: float, update: float) -> GRU:
    """Its gates at the given biases, whatever they read."""
    cell = GRU(INPUTS, HIDDEN)
    cell.input_bias[:HIDDEN], cell.input_bias[HIDDEN : 2 * HIDDEN] = reset, update
    nn.init.normal_(cell.input_bias[2 * HIDDEN :])
    nn.init.normal_(cell.candidate_bias)
    return cell


@torch.no_grad()
@pytest.mark.parametrize("reset", [SHUT, OPEN])
def test_update_at_1_keeps_the_state_whatever_reset_does(reset: float) -> None:
    cell, state = gru_with(reset, update=OPEN), torch.randn(SERIES, HIDDEN)
    _, moved = cell.step(torch.randn(SERIES, INPUTS), state)
    assert torch.equal(moved, state)


@torch.no_grad()
def test_update_at_0_and_reset_at_0_ignore_history() -> None:
    cell, x = gru_with(reset=SHUT, update=SHUT), torch.randn(SERIES, INPUTS)
    _, one = cell.step(x, torch.randn(SERIES, HIDDEN))
    _, other = cell.step(x, torch.randn(SERIES, HIDDEN))
    assert torch.equal(one, other)
    candidate = x @ cell.input_weights[:, 2 * HIDDEN :] + cell.input_bias[2 * HIDDEN :]
    close(one, candidate.tanh())


@torch.no_grad()
def test_update_at_0_and_reset_at_1_are_a_plain_rnn() -> None:
    cell, x, state = gru_with(reset=OPEN, update=SHUT), torch.randn(SERIES, INPUTS), torch.randn(SERIES, HIDDEN)
    plain = RNN(INPUTS, HIDDEN)
    plain.input_weights.copy_(cell.input_weights[:, 2 * HIDDEN :])
    plain.recurrent_weights.copy_(cell.candidate_weights)
    plain.bias.copy_(cell.input_bias[2 * HIDDEN :] + cell.candidate_bias)
    close(cell.step(x, state)[0], plain.step(x, state)[0])


@torch.no_grad()
def lstm_with(write: float, keep: float, show: float) -> LSTM:
    cell = LSTM(INPUTS, HIDDEN)
    cell.bias.copy_(torch.tensor([write, keep, show, 0.3]).repeat_interleave(HIDDEN))
    return cell


@torch.no_grad()
def test_the_corners_of_an_lstm() -> None:
    x, state = torch.randn(SERIES, INPUTS), torch.randn(SERIES, 2 * HIDDEN)
    h, c = state.chunk(2, 1)

    kept = lstm_with(SHUT, OPEN, OPEN).step(x, state)[1]
    close(kept, torch.cat([c.tanh(), c], 1))

    cell = lstm_with(OPEN, SHUT, OPEN)
    candidate = (cell.project(x) + h @ cell.recurrent_weights)[:, 3 * HIDDEN :].tanh()
    close(cell.step(x, state)[1], torch.cat([candidate.tanh(), candidate], 1))

    hidden, dropped = lstm_with(SHUT, SHUT, SHUT).step(x, state)
    assert not hidden.any()
    assert not dropped.any()


@torch.no_grad()
def test_the_gates_are_those_that_a_gru_moved_by() -> None:
    cell, x, state = gru_with(0.3, -0.2), torch.randn(SERIES, INPUTS), torch.randn(SERIES, HIDDEN)
    gates = cell.gates(x, state)
    assert set(gates) == {"update", "reset"}
    past = state @ cell.candidate_weights + cell.candidate_bias
    candidate = (cell.project(x)[:, 2 * HIDDEN :] + gates["reset"] * past).tanh()
    close(cell.step(x, state)[1], gates["update"] * state + (1 - gates["update"]) * candidate)


@torch.no_grad()
def test_the_gates_are_those_that_an_lstm_moved_by() -> None:
    cell, x, state = lstm_with(0.3, -0.2, 0.1), torch.randn(SERIES, INPUTS), torch.randn(SERIES, 2 * HIDDEN)
    gates = cell.gates(x, state)
    assert set(gates) == {"input", "forget", "output"}
    h, c = state.chunk(2, 1)
    candidate = (cell.project(x) + h @ cell.recurrent_weights)[:, 3 * HIDDEN :].tanh()
    moved = gates["forget"] * c + gates["input"] * candidate
    close(cell.step(x, state)[1], torch.cat([gates["output"] * moved.tanh(), moved], 1))


def test_a_plain_rnn_has_no_gates() -> None:
    cell = RNN(INPUTS, HIDDEN)
    assert cell.gates(torch.randn(SERIES, INPUTS), cell.initial_state(SERIES)) == {}


RECURRENT = {
    "gru": ["gate_weights", "candidate_weights"],
    "lstm": ["recurrent_weights"],
    "rnn": ["recurrent_weights"],
}
BIASES = {  # gate by gate, as the weights lie; 1 where a gate then remembers
    "gru": {"input_bias": [0, 1, 0], "candidate_bias": [0]},
    "lstm": {"bias": [0, 1, 0, 0]},
    "rnn": {"bias": [0]},
}


def gates_of(weights: Tensor, hidden: int) -> list[Tensor]:
    return list(torch.split(weights.detach(), hidden, -1))


@pytest.mark.parametrize("name", RECURRENT)
def test_orthogonal_initialisation(name: str) -> None:
    inputs, hidden = 40, 64
    cell = find(name)(inputs, hidden)
    nn.init.ones_(cell.start)
    cell.initialise("orthogonal")
    for weights in RECURRENT[name]:
        for gate in gates_of(getattr(cell, weights), hidden):
            torch.testing.assert_close(gate.T @ gate, torch.eye(hidden), rtol=0, atol=1e-5)
    bound = (6 / (inputs + hidden)) ** 0.5  # of Xavier for ONE gate
    for gate in gates_of(cast(Tensor, cell.input_weights), hidden):
        assert 0.98 * bound < gate.abs().max() <= bound
        assert abs(gate.mean()) < 0.05 * bound
    for bias, values in BIASES[name].items():
        expected = torch.tensor(values, dtype=torch.float32).repeat_interleave(hidden)
        assert torch.equal(getattr(cell, bias), expected)
    assert not cell.start.any()


@pytest.mark.parametrize("name", RECURRENT)
def test_uniform_initialisation(name: str) -> None:
    hidden = 64
    cell = find(name)(40, hidden)
    nn.init.ones_(cell.start)
    cell.initialise("uniform")
    for weight, values in cell.named_parameters():
        if weight != "start":
            assert 0.8 * hidden**-0.5 < values.abs().max() <= hidden**-0.5, weight
            assert values.min() < 0 < values.max(), weight
    assert not cell.start.any()


@pytest.mark.parametrize("name", PAIRS)
def test_under_mixed_precision_the_state_stays_in_single(name: str) -> None:
    """Half precision would lose what a gate near 1 keeps; the products alone are taken in it."""
    cell, x = find(name)(INPUTS, HIDDEN), torch.randn(TIME, SERIES, INPUTS)
    exact, _ = cell.unroll(x, cell.initial_state(SERIES))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, state = cell.unroll(x, cell.initial_state(SERIES))
        assert cell.project(x).dtype == torch.bfloat16
        assert all(gate.dtype == torch.float32 for gate in cell.gates(x[0], state).values())
    assert outputs.dtype == state.dtype == torch.float32
    torch.testing.assert_close(outputs, exact, rtol=0, atol=0.05)
    torch.autograd.backward(outputs.sum())
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in cell.parameters())


@pytest.mark.parametrize(
    "values", [torch.linspace(-20, 20, 10_001), torch.tensor([0.0, 1e-8, -1e-3, 1e30, -torch.inf])]
)
def test_the_fast_tanh(values: Tensor) -> None:
    before = values.clone()
    torch.testing.assert_close(tanh(values), values.tanh(), rtol=0, atol=2e-7)
    assert torch.equal(values, before)
    assert tanh(torch.tensor([torch.nan])).isnan().all()


def test_the_start_is_learned() -> None:
    for name in RECURRENT:
        cell: Cell = find(name)(INPUTS, HIDDEN)
        nn.init.normal_(cell.start)
        assert torch.equal(cell.initial_state(SERIES), cell.start.expand(SERIES, -1))
        torch.autograd.backward(cell.initial_state(SERIES).sum())
        assert torch.equal(cast(Tensor, cell.start.grad), torch.full((cell.state_size,), float(SERIES)))
