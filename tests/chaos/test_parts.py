"""The parts of the chaos tests that judge: they must not let by what they are there to find."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition

from stream_gru.settings import Settings
from tests.chaos.faults import FAULTS
from tests.chaos.memory import Life
from tests.chaos.nemesis import SECRET, draw, planted
from tests.support.check import NEAR_THRESHOLD, OUTPUT_CLOSE, _Check, _relative, _Said
from tests.support.progress import Stalls

OUTPUT: dict[str, Any] = {
    "id": "readings-0-7", "series": "s", "y": 20.0, "yhat": 20.5, "yhat_lower": 19.0, "yhat_upper": None,
    "anomaly_score": 0.5, "is_anomaly": False, "level": "normal",
}  # fmt: skip


def differ(change: dict[str, Any], of: dict[str, Any] | None = None) -> str:
    """What CHECK says of an output that is said again with a change."""
    first = OUTPUT | (of or {})
    one, other = (_Said.of(json.loads(json.dumps(output)), {}) for output in (first, first | change))
    return _Check(Settings(), ())._differ(one, other, scale=0.3)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"yhat": 20.5 + 20 * OUTPUT_CLOSE * 0.9},
        {"anomaly_score": 0.5 + NEAR_THRESHOLD * 0.9},
    ],
)
def test_what_agrees(change: dict[str, Any]) -> None:
    assert differ(change) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"yhat": 20.5 + 20 * OUTPUT_CLOSE * 1.1}, "a number"),
        ({"yhat_upper": 21.0}, "a number"),
        ({"y": 20.1}, "a number"),
        ({"series": "t"}, "other fields"),
        ({"imputed": 1}, "other fields"),
        ({"is_anomaly": True}, "another verdict"),
        ({"level": "anomaly"}, "another verdict"),
        ({"anomaly_score": 0.5 + NEAR_THRESHOLD * 1.1}, "a score"),
        ({"anomaly_score": None}, "a score"),
    ],
)
def test_what_does_not(change: dict[str, Any], said: str) -> None:
    assert said in differ(change)


def test_a_verdict_may_change_beside_the_threshold() -> None:
    near = {"anomaly_score": 1 - NEAR_THRESHOLD / 2}
    assert differ({"anomaly_score": 1 + NEAR_THRESHOLD / 3, "is_anomaly": True, "level": "anomaly"}, near) == ""


def test_how_far_rows_are_apart() -> None:
    mine = np.array([1.0, np.nan, np.inf, np.nan, np.inf, 3.0])
    theirs = np.array([1.0, np.nan, np.inf, 1.0, 1.0, 2.0])
    assert _relative(mine, theirs).tolist() == [0, 0, 0, np.inf, np.inf, pytest.approx(1 / 3)]


def test_a_partition_that_stands_still_is_noticed_and_an_idle_one_is_not() -> None:
    busy, idle = TopicPartition("t", 0), TopicPartition("t", 1)
    stalls = Stalls()
    for now, commit in ((0, 0), (1, 5), (2, 5), (3, 5), (4, 9), (5, 9)):
        stalls.look({busy: 10 + commit, idle: 3}, {busy: commit, idle: 3}, now)
    assert stalls.worst == 2
    assert stalls.where.startswith("t-0 at 5")


def test_the_slope_of_a_life_leaves_its_warm_up_out() -> None:
    life = Life("a", 1, times=[10.0 * n for n in range(100)])
    life.rss = [500 - t for t in life.times[:20]] + [300 + t * 2 / 3600 for t in life.times[20:]]
    assert life.slope(200) == pytest.approx(2.0)
    assert life.slope(5000) is None


def test_a_seed_says_which_faults_come() -> None:
    def storm(seed: int) -> list[list[str]]:
        chance = random.Random(seed)
        return [[one.act.__name__ for one in draw(chance)] for _ in range(300)]

    assert storm(1) == storm(1) != storm(2)
    struck = storm(3)
    assert {name for names in struck for name in names} == {one.act.__name__ for one in FAULTS}
    assert {len(names) for names in struck} == {1, 2}
    assert all(one != other for names in struck for one, other in pairwise(names))


def test_secrets_are_planted_where_they_go() -> None:
    made = planted(Settings())
    assert SECRET in made.state.url.get_secret_value()
    assert made.kafka.sasl_password is not None
