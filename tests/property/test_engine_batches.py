"""Whatever way a log is cut into batches, every output is the same, and nobody's neighbours matter."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from stream_gru.columns import Forecasts, Level, Readings
from stream_gru.engine.stepper import Stepper
from stream_gru.settings import Detector, Gaps
from tests.support.batching import run

_ODD = [0.0, 1.0, 1.0, -3.5, 1e9, 1e30, -1e30, 1e-30, float("nan")]


@pytest.fixture(scope="module")
def engines() -> dict[tuple[int, str], Stepper]:
    """Of both bundles of the package: the larger one for a single feature."""
    young, several = Detector(min_n_samples_seen=5), {"impute": 3}
    return {
        (f, policy): Stepper(
            Path("zero-shot" if f == 1 else "light"),
            features=f,
            capacity=64,
            detector=young,
            gaps=Gaps.model_validate({"policy": policy, "limit": several.get(policy, 24)}),
        )
        for f in (1, 3)
        for policy in ("carry", "reset", "impute")
    }


@st.composite
def logs(draw: st.DrawFn) -> tuple[Readings, list[int]]:
    """A log over up to five series with odd values, equal and late times and gaps, and where to cut it."""
    n = draw(st.integers(1, 70))
    features = draw(st.sampled_from([1, 3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    series = rng.integers(0, draw(st.integers(1, 5)), n)
    value = rng.normal(rng.choice([0, 5, 1e9]), rng.choice([0.1, 1, 100]), (n, features))
    odd = rng.random((n, features)) < draw(st.sampled_from([0, 0.1]))
    value[odd] = rng.choice(_ODD, int(odd.sum()))
    gap = rng.integers(0, 90_000, n) * rng.choice([1, 100], n, p=[0.95, 0.05])
    timestamp = 1_700_000_000_000 + np.cumsum(gap) - rng.choice([0, 0, 0, 10**5, 10**6], n)
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=6)))
    return Readings(series, np.arange(n), timestamp, value), cuts


def assert_same(one: Forecasts, other: Forecasts, y: np.ndarray) -> None:
    scale = np.maximum(1, np.nanmax(np.abs(np.where(np.isfinite(y), y, 0)), initial=0))
    for f in fields(Forecasts):
        a, b = getattr(one, f.name), getattr(other, f.name)
        if a.dtype.kind == "f" and "score" not in f.name and "grade" not in f.name:
            a, b = a / scale, b / scale
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=f.name)


@pytest.mark.slow
@examples(max_examples=30, deadline=None)
@pytest.mark.parametrize("policy", ["carry", "reset", "impute"])
@given(case=logs())
def test_any_batching_equals_one_at_a_time(
    engines: dict[tuple[int, str], Stepper], policy: str, case: tuple[Readings, list[int]]
) -> None:
    log, cuts = case
    engine = engines[log.value.shape[1], policy]
    assert_same(run(engine, log, cuts), run(engine, log, list(range(len(log)))), log.value)


@pytest.mark.slow
@examples(max_examples=20, deadline=None)
@pytest.mark.parametrize("policy", ["carry", "reset", "impute"])
@given(case=logs())
def test_neighbours_do_not_matter(
    engines: dict[tuple[int, str], Stepper], policy: str, case: tuple[Readings, list[int]]
) -> None:
    log, cuts = case
    engine = engines[log.value.shape[1], policy]
    mine = log.slot == log.slot[0]
    alone = run(engine, replace(log.take(mine), slot=np.zeros(int(mine.sum()), np.int64)), [])
    assert_same(run(engine, log, cuts).take(mine), alone, log.value[mine])


@pytest.mark.slow
@examples(max_examples=20, deadline=None)
@pytest.mark.parametrize("policy", ["carry", "reset", "impute"])
@given(case=logs())
def test_a_replayed_log_changes_nothing(
    engines: dict[tuple[int, str], Stepper], policy: str, case: tuple[Readings, list[int]]
) -> None:
    log, cuts = case
    engine = engines[log.value.shape[1], policy]
    first = run(engine, log, cuts)
    slots = engine.arena.lookup(0, [b"%d" % s for s in range(int(log.slot.max()) + 1)])
    before = engine.arena.read(slots)
    again = engine.step(replace(log, slot=slots[log.slot]))
    # A late reading moves nothing, so its row covers it only through a later one. Else it is said again, the same.
    assert (again.level[first.level != Level.LATE] == Level.COVERED).all()
    once_more = again.level != Level.COVERED
    assert (again.level[once_more] == Level.LATE).all()
    assert_same(again.take(once_more), first.take(once_more), log.value)
    np.testing.assert_array_equal(engine.arena.read(slots), before)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["carry", "reset", "impute"])
@examples(max_examples=30, deadline=None)
@given(case=logs(), data=st.data())
def test_what_is_said_again_after_a_restart_agrees(
    engines: dict[tuple[int, str], Stepper], policy: str, case: tuple[Readings, list[int]], data: st.DataObject
) -> None:
    """Guarantee 4, also for late readings: rows may be ahead of the offset that is read from, each by another bit."""
    log, cuts = case
    engine = engines[log.value.shape[1], policy]
    first = run(engine, log, cuts)
    series = int(log.slot.max()) + 1
    position = data.draw(st.integers(0, len(log)))
    ahead = data.draw(st.lists(st.integers(position, len(log)), min_size=series, max_size=series))
    names = [b"%d" % s for s in range(series)]
    stored = log.take(log.offset < np.array(ahead)[log.slot])
    if len(stored):
        run(engine, stored, [])
    slots = engine.arena.admit(0, names)
    rows = [engine.arena.read(slots[[one]]).tobytes() if one in stored.slot else None for one in range(series)]
    engine.arena.close(0)
    engine.arena.open(0)
    slots = engine.arena.insert(0, names, rows)
    rest = log.take(slice(position, None))
    again = engine.step(replace(rest, slot=slots[rest.slot]))
    said = again.level != Level.COVERED
    assert (said | (np.array(ahead)[rest.slot] > rest.offset)).all()
    assert_same(again.take(said), first.take(slice(position, None)).take(said), log.value)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["light", "zero-shot"])
def test_the_future_is_not_seen(bundle: str) -> None:
    """A prefix of a log has the outputs that it has within the whole."""
    rng = np.random.default_rng(0)
    n, hour = 3 * 450, 3_600_000
    row = np.arange(n) // 3
    value = np.sin(row * 2 * np.pi / 24) + rng.normal(0, 0.2, n) + np.arange(n) % 3 * 1000
    value[900] += 30  # in what the prefix does not have
    value[1050:] -= 5
    log = Readings(np.arange(n) % 3, np.arange(n), 1_700_000_000_000 + row * hour, value[:, None])
    engine = Stepper(Path(bundle), capacity=3)
    whole = run(engine, log, [])
    for end in (1, 300, 899):
        prefix = run(engine, log.take(slice(end)), [])
        assert_same(prefix, whole.take(slice(end)), log.value[:end])
    assert whole.is_anomaly[900:].any()
