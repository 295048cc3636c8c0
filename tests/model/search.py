"""Breadth-first search over everything that may happen in a `World`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.model.store import ViolationError
from tests.model.world import Action, World


class Found(NamedTuple):
    """What a search found."""

    states: int
    complete: bool  # every state was visited
    finished: bool  # in one of them all was done: the search was not idle
    violation: str | None = None
    trace: tuple[Action, ...] = ()


def explore(make: Callable[[], World], max_states: int) -> Found:
    """Breadth-first over everything that may happen, up to the first violation."""
    first = make()
    seen = {first.key(): 0}
    came: list[tuple[int, Action]] = [(0, ())]
    frontier = [first]
    ids = [0]
    finished = False

    def trace(at: int) -> tuple[Action, ...]:
        path: list[Action] = []
        while at:
            at, action = came[at]
            path.append(action)
        return tuple(reversed(path))

    while frontier:
        following, following_ids = [], []
        for state, at in zip(frontier, ids, strict=True):
            for action in state.actions():
                try:
                    world = state.after(action)
                except ViolationError as violation:
                    return Found(len(seen), False, finished, str(violation), (*trace(at), action))
                key = world.key()
                if key in seen:
                    continue
                finished |= world.finished
                seen[key] = len(came)
                came.append((at, action))
                following.append(world)
                following_ids.append(seen[key])
                if len(seen) >= max_states:
                    return Found(len(seen), False, finished)
        frontier, ids = following, following_ids
    return Found(len(seen), True, finished)
