"""Where the rows of a partition are kept. One file a store; `from_settings` finds it by the URL's scheme.

The rules R1-R21 that a store and the worker keep together are written beside the state machine in `protocol.partition`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from pydantic import SecretStr, ValidationError

from stream_gru.errors import SettingsError
from stream_gru.settings import State, explain


@dataclass(frozen=True, slots=True)
class PartitionId:
    """A partition as one consumer group sees it."""

    group: str
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.group}:{self.topic}:{self.partition}"


@dataclass(frozen=True, slots=True)
class Identity:
    """What stored rows belong to. Any difference makes them meaningless (rules R17, R20)."""

    topic_id: str  # "" where the broker has no topic ids
    partitions: int
    buckets: int
    model: str  # digest of the bundle
    row: str  # version of the row's layout
    name: str = field(default="", compare=False)  # of the bundle, for people


@dataclass(frozen=True, slots=True)
class Assigned:
    """What the store held when the partition was assigned."""

    offset: int | None  # next to read; None: nothing was ever checkpointed
    identity: Identity | None  # as stored before this assignment; None: there were no control fields
    rows: int = 0  # series in the store
    marks: Mapping[str, str] = field(default_factory=dict)  # what the last checkpoint wrote beside the offset
    reading: str = ""  # what an owner that did not hand over was reading (rule R21); see `protocol.guard`


@dataclass(frozen=True, slots=True)
class Chosen:
    """The model that a reload gave to a group: which one, and the bundle itself, for workers that lack its folder."""

    digest: str
    name: str
    replaced: Mapping[str, str]  # digest -> name of the models that reloads took out of use
    files: Mapping[str, bytes] = field(default_factory=dict)  # the bundle's, by name


@dataclass(frozen=True, slots=True)
class Write:
    """One numbered call. (owner, n) names these bytes for ever (rule R3)."""

    owner: str
    n: int
    series: Sequence[bytes] = ()
    rows: Sequence[bytes] = ()  # beside `series`
    offset: int | None = None  # only in the last chunk of a checkpoint (rule R4)
    marks: Mapping[str, str] = field(default_factory=dict)  # written with the offset
    identity: Identity | None = None  # set: delete every row first and take this identity (a reload)


class StoreAnswer(Enum):
    """What the store says to a numbered call."""

    OK = "ok"
    FENCED = "fenced"


class Store(Protocol):
    """Every call carries the owner and is refused when another one owns the partition.

    A server that does not answer raises `StoreUnavailableError`; the caller repeats the same call.
    """

    async def open(self) -> list[str]:
        """Connect and check the server. Returns warnings; raises `StoreError` for a server that may not be used."""
        ...

    async def assign(self, partition: PartitionId, owner: str, identity: Identity) -> Assigned:
        """Rule R1, one atomic call: take the partition for a never-used `owner`, sequence 0.

        Where there are no control fields yet, `identity` is stored. Never repeated with the same owner.
        """
        ...

    async def write(self, partition: PartitionId, writes: Sequence[Write]) -> StoreAnswer:
        """Rule R2, in order and pipelined. FENCED if any was; OK when all are in the store."""
        ...

    async def load(
        self, partition: PartitionId, owner: str, confirmed: int, series: Sequence[bytes]
    ) -> list[bytes | None]:
        """Rule R9: the rows of `series`, None where there is none. Raises `FencedError`."""
        ...

    def restore(self, partition: PartitionId, owner: str, confirmed: int) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """Rule R9, in bulk: every (series, row), some thousands at a time. Raises `FencedError`."""
        ...

    async def probe(self, partition: PartitionId, owner: str, confirmed: int) -> StoreAnswer:
        """Rule R14: do I still own it, and does the store still know my last confirmed call?"""
        ...

    async def probes(self, owned: Sequence[tuple[PartitionId, str, int]]) -> list[StoreAnswer]:
        """`probe` for many at once, in the same order."""
        ...

    async def mark(self, partition: PartitionId, owner: str, reading: str) -> StoreAnswer:
        """Rule R21: leave word of what this owner reads for whoever comes after it; empty: it hands over."""
        ...

    async def mark_soon(self, words: Sequence[tuple[PartitionId, str, str]]) -> None:
        """`mark` for many, on its way to the store when this returns, whatever becomes of this process then.

        No answer is waited for, and nothing is raised: a store that does not answer hears of none of it.
        """
        ...

    async def choose(self, group: str, chosen: Chosen, instead: Mapping[str, str]) -> None:
        """Make `chosen` the group's model, in one atomic call; `instead` is added to what it replaced, itself is not.

        `chosen.replaced` is not looked at: what earlier calls said is kept. May be repeated.
        """
        ...

    async def chosen(self, group: str, *, files: bool) -> Chosen | None:
        """The group's model, without the bundle unless `files`; None where no reload ever chose one."""
        ...

    async def forget(self, group: str) -> None:
        """Let the group have no model of its own any more."""
        ...

    async def delete(self, partition: PartitionId) -> int:
        """Forget the partition wholly (`stream-gru state reset`); the number of rows that it had."""
        ...

    async def close(self) -> None:
        """Let the connections go."""
        ...


def schemes() -> dict[str, str]:
    """URL scheme -> module, over every store there is."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        for scheme in importlib.import_module(f"{__name__}.{module.name}").SCHEMES:
            found[scheme] = module.name
    return found


def from_settings(state: State) -> Store:
    """The store that `state.url` names, not yet opened. Raises `SettingsError`."""
    scheme = state.address.scheme
    known = schemes()
    if scheme not in known:
        raise SettingsError(f"state.url: no store for {scheme}://; there are {', '.join(sorted(known))}")
    store: Store = importlib.import_module(f"{__name__}.{known[scheme]}").connect(state)
    return store


def connect(url: str, *, buckets: int, timeout_s: float) -> Store:
    """The store that `url` alone names, not yet opened. Raises `SettingsError`."""
    try:
        state = State(url=SecretStr(url), buckets=buckets, request_timeout_s=timeout_s)
    except ValidationError as error:
        raise explain(error, "state") from None
    return from_settings(state)
