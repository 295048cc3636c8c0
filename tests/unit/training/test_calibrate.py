"""Clean series, thresholds by what is said of them, and whether others keep to that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from stream_gru.detection.alert import Limits
from stream_gru.engine.stepper import Stepper
from stream_gru.models import bundle
from stream_gru.models.network import Network
from stream_gru.training import calibrate, clean
from tests.support.command_line import stream_gru

pytestmark = pytest.mark.slow

LIGHT = Path("light")
PLAN = calibrate.CalibrationPlan(series=300, readings=1500, seed=5)


@pytest.fixture(scope="module")
def limits() -> Limits:
    return calibrate.measure(LIGHT, PLAN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small bundle, and commands that run over it once between them, and for two sensitivities."""
    folder = tmp_path_factory.mktemp("small")
    description = bundle.Description(name="small", network=Network(hidden=8), horizons=(3, 24))
    bundle.save(folder, description, bundle.build(description))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "SENSITIVITIES", (0.01, 1.0))
        patch.setattr(calibrate, "measure", cache(calibrate.measure))
        patch.setattr(calibrate, "check", cache(calibrate.check))
        yield folder


def test_a_clean_fleet_is_the_same_for_a_seed_and_varied() -> None:
    time, value = clean.fleet(40, 500, 1)
    again = clean.fleet(40, 500, 1)
    np.testing.assert_array_equal(time, again[0])
    np.testing.assert_array_equal(value, again[1])
    assert not np.array_equal(value, clean.fleet(40, 500, 2)[1])
    assert np.isfinite(value).all()
    assert len(np.unique(np.diff(time))) > 3
    assert (value.std(1) > 0).all()


def test_thresholds_rise_as_fewer_alerts_are_wanted(limits: Limits) -> None:
    assert len(limits.rates) == len(limits.surprise) >= 4
    assert (np.diff(limits.rates) < 0).all()
    assert (np.diff(limits.surprise) > 0).all()
    assert (np.diff(limits.shares) < 0).all()
    assert (np.diff(limits.deviation) > 0).all()


def test_other_series_give_about_as_many_alerts_as_were_asked_for(limits: Limits) -> None:
    checked = calibrate.check(LIGHT, limits, replace(PLAN, seed=6), 0.3)
    assert checked.asked > 50
    assert checked.asked / 2 < checked.got < 2 * checked.asked
    assert checked.share < 0.02


def test_a_dry_run_leaves_the_bundle_alone(folder: Path) -> None:
    before = bundle.load(folder).digest
    result = stream_gru("calibrate", folder, "--series", 100, "--readings", 1500, "--dry-run")
    assert "alerts" in result.output
    assert bundle.load(folder).digest == before


def test_thresholds_are_written_into_the_bundle_and_served(folder: Path) -> None:
    before = bundle.load(folder)
    result = stream_gru("calibrate", folder, "--series", 100, "--readings", 1500, "--json")
    report = json.loads(result.stdout[result.stdout.index('{"alarms"') :])
    assert [row["sensitivity"] for row in report["check"]] == [0.01, 1.0]
    after = bundle.load(folder)
    assert after.digest != before.digest
    assert after.description.alarms is not None
    assert after.description.alarms._asdict() == {name: tuple(row) for name, row in report["alarms"].items()}
    assert Stepper(folder, capacity=1, device="cpu").limits == after.description.alarms


@pytest.mark.parametrize(("horizons", "lead"), [((12, 36), 36), ((12,), 12), ((3, 96, 500), 96), ((200, 500), 200)])
def test_detection_waits_for_the_farthest_horizon_that_is_near(horizons: tuple[int, ...], lead: int) -> None:
    assert bundle.Description(name="x", horizons=horizons).lead == lead
