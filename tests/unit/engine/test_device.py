"""What the device remembers of a reading, and what it makes of it later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from stream_gru import settings
from stream_gru.columns import Forecasts, Readings
from stream_gru.detection import calibration, detector
from stream_gru.detection.channels import average
from stream_gru.engine.row import Structured
from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle as bundles
from stream_gru.models.network import Network

START, MINUTE = 1_700_000_000_000, 60_000
NAN = float("nan")


def make(bundle: bundles.Bundle | None = None, features: int = 1, policy: str = "carry") -> Stepper:
    made = Stepper(
        bundle or Path("light"),
        features=features,
        capacity=4,
        device="cpu",
        detector=settings.Detector(min_n_samples_seen=20),
        gaps=settings.Gaps.model_validate({"policy": policy}),
    )
    made.arena.open(0)
    return made


def feed(engine: Stepper, values: npt.ArrayLike, first: int = 0, name: bytes = b"s") -> Forecasts:
    """Readings of one series, a minute apart, of which it had `first` before."""
    table, slot = np.asarray(values, float), engine.arena.admit(0, [name])
    offset = np.arange(first, first + len(table))
    return engine.step(
        Readings(np.repeat(slot, len(table)), offset, START + MINUTE * offset, table.reshape(len(table), -1))
    )


def row(engine: Stepper, name: bytes = b"s") -> Structured:
    return engine.layout.parse(engine.arena.read(engine.arena.lookup(0, [name])))


def noise(n: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).standard_t(3, n)


def test_the_factors_of_the_intervals_follow_what_was_forecast_and_what_came() -> None:
    engine, y = make(), noise(150)
    made = feed(engine, y).quantiles[:, :, 0]
    levels = torch.tensor(engine.levels)[:, None]
    factors = torch.zeros(len(levels), 1)
    for t in range(1, len(y)):
        seen, dx = (torch.full((1, 1), number) for number in (1 / t, y[t] - y[t - 1]))
        factors = calibration.track(factors, torch.from_numpy(made[t, :, None] - y[t - 1]), dx, seen, levels)
    tracked = row(engine)["body"]["tracked"][0, 0]
    np.testing.assert_allclose(tracked, factors[:, 0], atol=1e-6)
    assert np.ptp(tracked) > 0.02


def test_an_interval_is_drawn_out_by_the_factors_of_the_series() -> None:
    engine, y = make(), noise(21)
    feed(engine, y[:20])
    wider = row(engine).copy()
    wider["body"]["tracked"] = np.log(2)
    engine.arena.insert(0, [b"wider"], [wider.tobytes()])
    one, other = (feed(engine, y[20:], 20, name).ahead[0, :, :, 0] for name in (b"s", b"wider"))
    np.testing.assert_allclose(other[0] - y[20], one[0] - y[20] + (one[0] - one[0, 0]), rtol=1e-4)
    np.testing.assert_array_equal(other[1:], one[1:])


def test_a_value_that_was_filled_in_is_no_evidence() -> None:
    engine = make(policy="impute")
    feed(engine, noise(80))
    before = row(engine).copy()
    assert feed(engine, [NAN], 80).imputed.tolist() == [1]
    after = row(engine)
    for name in ("tracked", *detector.FIELDS):
        np.testing.assert_array_equal(after["body"][name], before["body"][name], err_msg=name)
    assert after["body"]["made"].tobytes() != before["body"]["made"].tobytes()


def test_there_is_no_residual_before_the_first_forecast_of_a_horizon_before() -> None:
    engine = make()
    lead = engine.bundle.description.lead
    y = noise(lead + 1)
    feed(engine, y[:lead])
    assert row(engine)["body"]["smoothed"][0, 0, average("error 20")] == 0
    feed(engine, y[lead:], lead)
    assert row(engine)["body"]["smoothed"][0, 0, average("error 20")] > 0


def test_what_was_expected_is_the_forecast_that_detection_waited_for() -> None:
    """And the share is that of the feature that went away."""
    engine, y = make(features=2), np.stack([noise(120), 50 + noise(120, 1)], axis=1)
    lead = engine.bundle.description.lead
    y[100:103, 0] += 60
    out = feed(engine, y)
    there = np.flatnonzero(out.is_anomaly)
    assert {100, 101, 102} <= set(there.tolist())
    np.testing.assert_allclose(
        out.expected_values[there], out.ahead[there - lead, engine.steps.index(lead), 0], rtol=1e-5, atol=1e-4
    )
    assert np.isnan(out.expected_values[~out.is_anomaly]).all()
    assert (out.relevant_attribution[100:103, 0] > 0.9).all()


def test_a_feature_that_never_comes_does_not_keep_another_young() -> None:
    """What was seen of a series makes its surprises count, whichever of its features that was."""
    y = noise(100)
    outs = feed(make(), y), feed(make(features=2), np.stack([y, np.full(100, NAN)], axis=1))
    alone, beside = (np.nanmax(out.alert_score) for out in outs)
    assert beside > 0.1 * alone > 0


def ensemble() -> tuple[bundles.Bundle, list[bundles.Bundle]]:
    """One of two members, and each of the two alone."""

    def describe(*cells: str) -> bundles.Description:
        return bundles.Description(name="-".join(cells), network=Network(cells=cells, hidden=4), horizons=(3,))

    torch.manual_seed(0)
    cells = ("gru", "lstm")
    both = bundles.build(describe(*cells))
    for weight in both.parameters():
        torch.nn.init.normal_(weight.requires_grad_(False), 0, 0.3)
    members = [bundles.build(describe(cell)) for cell in cells]
    for i, member in enumerate(members):
        prefixes = {f"network.parts.{i}.": "network.", f"heads.{i}.": "heads.0."}
        own = {
            new + name.removeprefix(old): tensor
            for name, tensor in both.state_dict().items()
            for old, new in prefixes.items()
            if name.startswith(old)
        }
        member.requires_grad_(False).load_state_dict(own)
    alone = [bundles.Bundle(describe(cell), member.eval(), cell) for cell, member in zip(cells, members, strict=True)]
    return bundles.Bundle(describe(*cells), both.eval(), "both"), alone


def test_an_ensemble_says_the_mean_of_its_members_and_how_far_they_were_apart() -> None:
    both, members = ensemble()
    y = noise(40)  # fewer readings than it takes to move the factors of the intervals
    out, (one, other) = feed(make(both), y), (feed(make(member), y) for member in members)
    np.testing.assert_allclose(out.ahead, (one.ahead + other.ahead) / 2, rtol=1e-5, atol=1e-5)
    apart = np.std([one.yhat, other.yhat], axis=0, ddof=1)
    np.testing.assert_allclose(out.spread, apart, rtol=1e-4, atol=1e-5)
    assert np.isnan(out.spread[0]).all()
    assert np.isnan(one.spread).all()
    with pytest.raises(AssertionError):  # they do differ
        np.testing.assert_allclose(one.ahead, other.ahead, rtol=0.1)
