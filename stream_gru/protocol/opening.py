"""Where an assigned partition begins: pure functions of what the store and Kafka say. Rules: see `partition.py`."""

from __future__ import annotations

import re
import zlib
from collections.abc import Set
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Literal

from stream_gru.errors import GapError, IdentityError, StateLostError
from stream_gru.stores import Assigned, Identity, PartitionId

TAG = "stream-gru/1"  # first word of our commits' metadata (R13)
LAST = "last"  # the mark "<offset>:<crc32>" of the last record applied (R17)


class Start(Enum):
    """How a partition begins."""

    FIRST = "first start"
    RESUMED = "resumed"
    LOST = "state lost"  # rule R15


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say about beginnings: `kafka.start`, `state.on_state_lost`, `state.on_gap`."""

    start: Literal["earliest", "latest"] = "earliest"
    on_state_lost: Literal["rebuild", "refuse"] = "rebuild"
    on_gap: Literal["continue", "refuse"] = "continue"


@dataclass(frozen=True, slots=True)
class Commit:
    """What the group committed to Kafka for a partition."""

    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets [start, end) that Kafka no longer holds and that were never applied (rule R16)."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """The record at `offset` had this crc when it was applied; if not, the log is another one (rule R17)."""

    offset: int
    crc: int
    of_commit: bool  # spoken of by the commit, not by the store


@dataclass(frozen=True, slots=True)
class Opening:
    """What was decided at an assignment."""

    start: Start
    position: int  # seek here
    mute_below: int | None  # outputs below were acknowledged before (rule R13)
    gap: Gap | None = None
    checks: tuple[RecordCheck, ...] = ()  # read these records and pass their crcs to `Partition.verify`
    adopts: bool = False  # the stored rows are of a model that a reload replaced: send `Partition.pending` first (R18)


def decide(
    at: PartitionId,
    now: Identity,
    policy: Policy,
    *,
    assigned: Assigned,
    commit: Commit | None,
    start: int,
    end: int,
    replaced: Set[str] = frozenset(),
) -> Opening:
    """Where to begin in a log of offsets [start, end). Raises `IdentityError`, `StateLostError` or `GapError`.

    `replaced` are the models that reloads took out of use, which the owner of this partition may not have heard of.
    """
    adopts = False
    was = assigned.identity
    if was is not None and was.model in replaced - {now.model}:
        was, adopts = replace(was, model=now.model, row=now.row), True
    compare(at, was, now)
    how, position = Start.RESUMED, assigned.offset
    if position is None and commit is None:
        how, position = Start.FIRST, start if policy.start == "earliest" else end
    elif position is None and commit is not None:  # R15
        how, position = Start.LOST, min(commit.offset, start)
        if policy.on_state_lost == "refuse":
            raise StateLostError(
                f"{at}: the group committed offset {commit.offset}, but the store holds no state. Restore the store "
                "from a backup, or set state.on_state_lost = rebuild to replay what Kafka retains"
            )
    assert position is not None  # noqa: S101 - the two branches above cover it; mypy can't see that
    gap = gap_before(at, policy, position, start, end)
    mute = commit if commit and commit.offset <= end and commit.metadata.split(" ")[:2] == _tag(now) else None  # R13
    checks = (
        _check(now, assigned.marks.get(LAST, ""), of_commit=False),
        _check(now, mute.metadata.split(" ")[-1] if mute else "", of_commit=True),
    )
    return Opening(
        how,
        gap.end if gap else position,
        mute.offset if mute else None,
        gap,
        tuple(check for check in checks if check and start <= check.offset < end),
        adopts,
    )


def gap_before(at: PartitionId, policy: Policy, position: int, start: int, end: int) -> Gap | None:
    """R16: what is missing between `position` and a log of offsets [start, end)."""
    if position > end:  # R17
        raise IdentityError(
            f"{at}: the next offset to read is {position}, but the log ends at {end}: the topic was made again or "
            "Kafka lost records. Forget the old state with `stream-gru state reset`, then start again"
        )
    if position < start and policy.on_gap == "refuse":
        raise GapError(
            f"{at}: records {position} to {start - 1} are gone from Kafka and were never scored. Lengthen the topic's "
            "retention; to go on without them set state.on_gap = continue"
        )
    return Gap(position, start) if position < start else None


def compare(at: PartitionId, was: Identity | None, now: Identity) -> None:
    """R17, R20: rows mean something only to the topic, model and layout that they were made for."""
    differ = [f.name for f in fields(Identity) if f.compare and was and getattr(was, f.name) != getattr(now, f.name)]
    if was is not None and differ:
        then, here = (", ".join(_said(i, name) for name in differ) for i in (was, now))
        do = next(_DO[name] for name in _DO if name in differ)
        raise IdentityError(
            f"{at}: the state was made with {then}, but here it is {here}. {do} it with `stream-gru state reset "
            f"--topic {at.topic}` and let it be rebuilt from what Kafka retains"
        )


def commit_of(now: Identity, offset: int, mark: str | None) -> Commit:
    """Our commit of `offset`: the tag, the topic's id, and the mark of the last record applied (R13)."""
    return Commit(offset, " ".join([*_tag(now), *([mark] if mark else [])]))


def mark_of(offset: int, crc: int) -> str:
    """The mark of a record."""
    return f"{offset}:{crc:08x}"


def record_crc(key: bytes | None, value: bytes | None) -> int:
    """The crc32 of a record's key and value, by which a log without a topic id is recognised (rule R17)."""
    return zlib.crc32(value or b"", zlib.crc32((key or b"") + b"\0"))


_DO = {  # what differs -> what to do about it
    "topic_id": "The topic was deleted and made again: forget",
    "partitions": "With the number of partitions, series moved from one to another: forget",
    "model": "Set model.bundle to the model that it was made with, or forget",
    "buckets": "Set state.buckets to what it was, or forget",
    "row": "Run the version of stream-gru that made it, or forget",
}


def _said(identity: Identity, name: str) -> str:
    value = getattr(identity, name)
    return f"{name} {identity.name if name == 'model' and identity.name else value!r}"


def _tag(now: Identity) -> list[str]:
    return [TAG, now.topic_id or "-"]


def _check(now: Identity, mark: str, *, of_commit: bool) -> RecordCheck | None:
    """What a mark lets one check, where the broker has no topic ids."""
    found = None if now.topic_id else re.fullmatch(r"(\d+):([0-9a-f]{8})", mark)
    return RecordCheck(int(found[1]), int(found[2], 16), of_commit) if found else None
