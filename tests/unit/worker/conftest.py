"""A worker over a Kafka that is played."""

from __future__ import annotations

import pytest

from tests.support.one_worker import Play, World, player


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    return player(monkeypatch)


@pytest.fixture
def world() -> World:
    made = World()
    made.add(30, 0)
    made.add(20, 1)
    return made
