"""Blocks that look back over a ring of the past: what they compute, how far they reach, what they remember."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from stream_gru.models.block import Block
from stream_gru.models.blocks import ring
from stream_gru.models.blocks.attention import Attention
from stream_gru.models.blocks.bidirectional import Bidirectional
from stream_gru.models.blocks.convolution import Convolution
from stream_gru.models.blocks.transformer import Transformer
from stream_gru.models.blocks.zoneout import Zoneout
from stream_gru.models.cells.gru import GRU
from stream_gru.models.cells.lstm import LSTM

WIDTH, SERIES, TIME = 6, 3, 70
LONG, SHORT = 30, 5  # a window longer, and one shorter, than a stretch of `ring.look_back`

MAKERS: dict[str, Callable[[int], Block]] = {
    "convolution": lambda window: Convolution(WIDTH, 4, window),
    "attention": lambda window: Attention(WIDTH, window),
    "transformer": lambda window: Transformer(WIDTH, window, heads=2),
    "bidirectional": lambda window: Bidirectional(lambda inputs: GRU(inputs, 4), WIDTH, window),
    "bidirectional-lstm": lambda window: Bidirectional(lambda inputs: LSTM(inputs, 4), WIDTH, window),
    "bidirectional-zoneout": lambda window: Bidirectional(lambda inputs: Zoneout(GRU(inputs, 4), 0.3), WIDTH, window),
}


def drawn(block: Block) -> Block:
    """All weights at random, those that begin as 0 too, and as it is served."""
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.4)
    return block.eval()


@pytest.fixture(params=sorted(MAKERS))
def make(request: pytest.FixtureRequest) -> Callable[[int], Block]:
    maker = MAKERS[request.param]
    return lambda window: drawn(maker(window))


def inputs(time: int = TIME) -> Tensor:
    return torch.randn(time, SERIES, WIDTH)


def stepped(block: Block, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return Block.unroll(block, x, state)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("window", [1, 2, SHORT, LONG])
@pytest.mark.parametrize("before", [0, 3, 40])
def test_unroll_is_step_after_step(make: Callable[[int], Block], window: int, before: int) -> None:
    block, x = make(window), inputs()
    _, state = (
        stepped(block, x[:before], block.initial_state(SERIES)) if before else (None, block.initial_state(SERIES))
    )
    outputs, last = block.unroll(x[before:], state)
    expected, expected_last = stepped(block, x[before:], state)
    assert outputs.shape == (TIME - before, SERIES, block.output_size)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last, expected_last, rtol=1e-5, atol=1e-6)
    assert last.shape == (SERIES, block.state_size)


@torch.no_grad()
def test_unroll_in_pieces_of_series_of_different_ages(make: Callable[[int], Block]) -> None:
    block, x = make(SHORT), inputs()
    state = block.initial_state(SERIES).clone()
    for series, age in enumerate((0, 2, 9)):
        for t in range(age):
            state[series : series + 1] = block.step(x[t, series : series + 1], state[series : series + 1])[1]
    together, state = block.unroll(x[10:13], state)
    later, _ = block.unroll(x[13:], state)
    for series, age in enumerate((0, 2, 9)):
        alone = torch.cat([x[:age, series : series + 1], x[10:, series : series + 1]])
        expected, _ = stepped(block, alone, block.initial_state(1))
        torch.testing.assert_close(torch.cat([together, later])[:, series], expected[age:, 0], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_series_alone_and_through_bytes(make: Callable[[int], Block]) -> None:
    block, x = make(SHORT), inputs()
    outputs, _ = block.unroll(x, block.initial_state(SERIES))
    polluted = x.clone()
    polluted[:, 1:] = torch.nan
    _, state = block.unroll(polluted[:7], block.initial_state(SERIES))
    assert state.dtype == torch.float32
    stored = torch.frombuffer(bytearray(state.numpy().tobytes()), dtype=torch.float32).view(SERIES, block.state_size)
    rest, _ = stepped(block, polluted[7:], stored)
    torch.testing.assert_close(rest[:, 0], outputs[7:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unrolled", [True, False])
def test_reaches_as_far_as_the_window_and_no_farther(make: Callable[[int], Block], unrolled: bool) -> None:
    block, x, now = make(SHORT), inputs(30).requires_grad_(), 20
    run = block.unroll if unrolled else partial(stepped, block)
    outputs, _ = run(x, block.initial_state(SERIES))
    (influence,) = torch.autograd.grad(outputs[now].square().sum(), x)
    reached = influence.abs().sum((1, 2)) > 0
    assert reached.nonzero().flatten().tolist() == list(range(now - SHORT + 1, now + 1))


def test_unroll_learns_what_steps_learn(make: Callable[[int], Block]) -> None:
    block, x = make(SHORT), inputs()
    weights = list(block.parameters())
    slopes = [
        torch.autograd.grad(run(x, block.initial_state(SERIES))[0].square().mean(), weights)
        for run in (block.unroll, partial(stepped, block))
    ]
    for unrolled, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(unrolled, expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_no_series_is_no_error(make: Callable[[int], Block]) -> None:
    block = make(SHORT)
    output, state = block.step(torch.empty(0, WIDTH), block.initial_state(0))
    assert output.shape == (0, block.output_size)
    assert state.shape == (0, block.state_size)
    assert block.unroll(torch.empty(4, 0, WIDTH), state)[0].shape == (4, 0, block.output_size)


def test_the_ring_counts_to_its_window_and_keeps_the_newest() -> None:
    x = torch.arange(1.0, 8).view(7, 1, 1)
    state = torch.zeros(1, ring.size(3, 1))
    seen = []
    for now in x:
        state = ring.push(state, now)
        seen.append(state[0].tolist())
    assert seen[:4] == [[1, 0, 0, 1], [2, 0, 1, 2], [3, 1, 2, 3], [3, 2, 3, 4]]
    for steps in range(1, 8):
        extended = ring.extend(torch.zeros(1, ring.size(3, 1)), x[:steps].transpose(0, 1))
        assert extended[0].tolist() == seen[steps - 1]


@torch.no_grad()
def test_convolution_is_the_causal_filter() -> None:
    block = Convolution(1, 1, 3)
    block.weight.copy_(torch.tensor([[3.0], [2.0], [1.0]]))  # 1 for the newest
    block.bias.fill_(-4.0)
    outputs, _ = block.unroll(torch.tensor([1.0, 2, 0, 5]).view(4, 1, 1), block.initial_state(1))
    # 1 - 4 < 0; 2 + 2 - 4; 0 + 4 + 3 - 4; 5 + 0 + 6 - 4
    assert outputs.flatten().tolist() == [0, 0, 3, 7]


@torch.no_grad()
@pytest.mark.parametrize("back", [0, 3, SHORT - 1])
def test_attention_copies_what_was_shown_some_steps_ago(back: int) -> None:
    block = Attention(WIDTH, SHORT)
    block.query.zero_()
    block.age.fill_(-100.0)[0, SHORT - 1 - back] = 100
    block.combine.weight.copy_(torch.cat([torch.eye(WIDTH), torch.zeros(WIDTH, WIDTH)], 1))
    x = inputs()
    outputs, _ = block.unroll(x, block.initial_state(SERIES))
    torch.testing.assert_close((outputs - x)[back:], x[: TIME - back].tanh())


@torch.no_grad()
def test_attention_finds_what_is_like_the_present() -> None:
    block = Attention(WIDTH, SHORT)
    block.query.copy_(100 * torch.eye(WIDTH))
    states = torch.eye(WIDTH)[[0, 1, 2, 3, 1]][:, None]
    _, state = block.unroll(states[:-1], block.initial_state(1))
    weights = block.weights(states[-1], state)
    torch.testing.assert_close(weights, torch.tensor([[0, 0.5, 0, 0, 0.5]]), rtol=0, atol=1e-6)


@torch.no_grad()
def test_attention_gives_all_to_what_is_there_and_nothing_to_the_rest() -> None:
    block = drawn(Attention(WIDTH, SHORT))
    assert isinstance(block, Attention)
    state, x = block.initial_state(SERIES), inputs(9)
    for t, now in enumerate(x):
        weights = block.weights(now, state)
        output, state = block.step(now, state)
        assert weights.shape == (SERIES, SHORT)
        torch.testing.assert_close(weights.sum(1), torch.ones(SERIES))
        there = min(t + 1, SHORT)
        assert (weights[:, SHORT - there :] > 0).all()
        assert (weights[:, : SHORT - there] == 0).all()
        rows = x[max(0, t - SHORT + 1) : t + 1]
        scores = torch.einsum("nd,de,wne->nw", now, block.query, rows) / WIDTH**0.5 + block.age[:, SHORT - there :]
        torch.testing.assert_close(weights[:, SHORT - there :], scores.softmax(1))
        context = torch.einsum("nw,wnd->nd", weights[:, SHORT - there :], rows)
        expected = now + block.combine(torch.cat([context, now], 1)).tanh()
        torch.testing.assert_close(output, expected)


@torch.no_grad()
def test_transformer_is_multi_head_attention_over_the_window() -> None:
    """Against torch's, which projects every row to a key and a value, with biases that the folded form leaves out."""
    heads = 2
    block = drawn(Transformer(WIDTH, SHORT, heads))
    assert isinstance(block, Transformer)
    torchs = nn.MultiheadAttention(WIDTH, heads).eval()
    key_bias, value_bias = torch.randn(WIDTH), torch.randn(WIDTH)
    torchs.in_proj_weight.copy_(torch.cat([block.query.weight, block.key, block.value]))
    torchs.in_proj_bias.copy_(torch.cat([block.query.bias, key_bias, value_bias]))
    torchs.out_proj.weight.copy_(block.out.weight)
    torchs.out_proj.bias.copy_(block.out.bias - block.out.weight @ value_bias)
    x = inputs(9)
    z = block.attention_norm(x)
    outputs, _ = block.unroll(x, block.initial_state(SERIES))
    for t in range(len(x)):
        rows = z[max(0, t - SHORT + 1) : t + 1]
        bias = block.age[:, -len(rows) :].repeat(SERIES, 1)[:, None]  # (series * heads, 1, rows)
        found, _ = torchs(z[t : t + 1], rows, rows, attn_mask=bias)
        y = x[t] + found[0]
        torch.testing.assert_close(outputs[t], y + block.perceptron(y), rtol=1e-5, atol=1e-5)


def test_transformer_drops_in_training_alone() -> None:
    block, x = Transformer(WIDTH, SHORT, heads=2, dropout=0.5), inputs(9)
    state = block.initial_state(SERIES)
    assert not torch.equal(block.unroll(x, state)[0], block.unroll(x, state)[0])
    block.eval()
    assert torch.equal(block.unroll(x, state)[0], block.unroll(x, state)[0])


@torch.no_grad()
def test_bidirectional_reads_the_window_both_ways() -> None:
    block = drawn(Bidirectional(lambda inputs: GRU(inputs, 4), WIDTH, SHORT))
    assert isinstance(block, Bidirectional)
    x = inputs(9)
    outputs, _ = block.unroll(x, block.initial_state(SERIES))
    for t in range(len(x)):
        rows = x[max(0, t - SHORT + 1) : t + 1]
        ahead, _ = block.forwards.unroll(rows, block.forwards.initial_state(SERIES))
        back, _ = block.backwards.unroll(rows.flip(0), block.backwards.initial_state(SERIES))
        torch.testing.assert_close(outputs[t], torch.cat([ahead[-1], back[-1]], 1), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_bidirectional_shows_the_gates_of_its_last_forward_step() -> None:
    block = drawn(Bidirectional(lambda inputs: GRU(inputs, 4), WIDTH, SHORT))
    assert isinstance(block, Bidirectional)
    x = inputs(9)
    _, state = block.unroll(x[:-1], block.initial_state(SERIES))
    _, before = block.forwards.unroll(x[-SHORT:-1], block.forwards.initial_state(SERIES))
    expected = block.forwards.gates(x[-1], before)
    found = block.gates(x[-1], state)
    assert found.keys() == expected.keys() == {"update", "reset"}
    for name, gate in found.items():
        torch.testing.assert_close(gate, expected[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [lambda window: Attention(16, window), lambda window: Transformer(16, window, heads=2)],
    ids=["attention", "transformer"],
)
def test_learns_to_repeat_what_was_shown_some_steps_ago(make: Callable[[int], Block]) -> None:
    """An echo of noise needs the window: who does not look back that far can do no better than an error of 1."""

    def error(window: int, back: int = 5) -> float:
        block, head = make(window), nn.Linear(16, 1)
        optimizer = torch.optim.Adam([*block.parameters(), *head.parameters()], lr=0.02)
        losses: list[float] = []
        for _ in range(150):
            x = torch.randn(24, 16, 16)
            outputs, _ = block.unroll(x, block.initial_state(16))
            loss = (head(outputs)[back:, :, 0] - x[:-back, :, 0]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return sum(losses[-20:]) / 20

    assert error(window=8) < 0.3
    assert error(window=5) > 0.9
