"""Breadth-first search over everything that may happen in a `World`."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, NamedTuple

from stream_gru.opening import Check
from stream_gru.partition import Batch, Checkpoint, Commit, Policy
from stream_gru.stores import Assigned, Identity, PartitionId, Write
from tests.model.store import ViolationError
from tests.model.world import Action, World


def _by_constructor(kind: type[Any]) -> Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]:
    get = attrgetter(*(f.name for f in fields(kind)))
    return lambda instance: (kind, get(instance))


SLOTTED = (PartitionId, Policy, Identity, Write, Commit, Check, Batch, Checkpoint, Assigned)
DISPATCH: dict[type[Any], Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    kind: _by_constructor(kind) for kind in SLOTTED
}  # four times as fast as how slotted dataclasses pickle


def freeze(world: World) -> bytes:
    """The world as bytes; `pickle.loads` makes a new one of them."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = DISPATCH
    pickler.dump(world)
    return buffer.getvalue()


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
    frontier = [freeze(first)]
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
            for action in pickle.loads(state).actions():  # noqa: S301 - our own bytes
                world: World = pickle.loads(state)  # noqa: S301 - our own bytes
                try:
                    world.apply(action)
                except ViolationError as violation:
                    return Found(len(seen), False, finished, str(violation), (*trace(at), action))
                key = world.key()
                if key in seen:
                    continue
                finished |= world.finished
                seen[key] = len(came)
                came.append((at, action))
                following.append(freeze(world))
                following_ids.append(seen[key])
                if len(seen) >= max_states:
                    return Found(len(seen), False, finished)
        frontier, ids = following, following_ids
    return Found(len(seen), True, finished)
