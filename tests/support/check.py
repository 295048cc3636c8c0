"""The CHECK that every fault test ends with: nothing lost, what was said twice agrees, states as if nothing happened.

An oracle, one engine in this process, reads the log once. It steps other batches than the workers did, so float32
recurrences end a little apart; how far apart is allowed stands here, and how far apart they were is told.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from aiokafka import TopicPartition

from stream_gru import codecs, stores
from stream_gru.columns import Readings
from stream_gru.engine.stepper import Stepper
from stream_gru.settings import Settings
from stream_gru.stores import PartitionId
from tests.support.reading import each, partitions

OUTPUT_CLOSE = 1e-4  # of an output said again, relative to max(1, |y|, the series' scale)
STATE_CLOSE = 1e-4  # of a row's numbers, relative to 1 + |what it should be|
TIE = 0.06  # what a reading right on a forecast quantile moves: half of it counts as below, or all, or nothing
NEAR_THRESHOLD = 1e-3  # a score so near to 1 may be on either side of it the second time
_NUMBERS = ("y", "yhat", "yhat_lower", "yhat_upper")
_TOLD = 10  # violations that are told in full


@dataclass
class Deviations:
    """The largest ones that a CHECK saw, whether they were allowed or not."""

    output: float = 0.0
    score: float = 0.0
    state: dict[str, float] = field(default_factory=dict)  # by field of the row
    flips: int = 0  # flags that differ because the score is near the threshold
    ties: int = 0  # series with a reading so near to a forecast quantile that it is on either side of it

    def __str__(self) -> str:
        worst = sorted(self.state.items(), key=lambda item: -item[1])[:3]
        fields = ", ".join(f"{name} {value:.1e}" for name, value in worst)
        return (
            f"outputs {self.output:.1e}, scores {self.score:.1e}, flips {self.flips}, ties {self.ties}; "
            f"states: {fields or 'none'}"
        )


@dataclass
class Checked:
    """What a CHECK counted."""

    inputs: int
    outputs: int
    dead: int
    duplicates: int
    blamed: int = 0  # dead letters of good readings: they were in hand at three crashes in a row, or one too many
    deviations: Deviations = field(default_factory=Deviations)

    def __str__(self) -> str:
        return (
            f"{self.inputs} inputs, {self.outputs} outputs, {self.dead} dead letters ({self.blamed} of good readings), "
            f"{self.duplicates} repeated; "
            f"deviations: {self.deviations}"
        )


@dataclass(slots=True)
class _Said:
    """As much of an output as is compared: an hour's run has a million of them."""

    series: str
    names: frozenset[str]
    numbers: tuple[float | None, ...]
    score: float | None
    verdict: tuple[Any, ...]  # is_anomaly, level

    @classmethod
    def of(cls, output: Mapping[str, Any], known: dict[frozenset[str], frozenset[str]]) -> _Said:
        names = frozenset(output) - {"relevant_attribution", "expected_values"}  # these two go with the verdict
        return cls(
            output["series"],
            known.setdefault(names, names),
            tuple(number for name in _NUMBERS for number in _flat(output[name])),
            output["anomaly_score"],
            (output["is_anomaly"], output["level"]),
        )


async def check(settings: Settings, *, leave_out: Collection[str] = ()) -> Checked:
    """Raise `AssertionError` with all that does not hold. Stop the workers before it.

    Of the series in `leave_out` only that every reading has an answer is checked: a reset has made them others.
    """
    checking = _Check(settings, leave_out)
    await checking.read()
    await checking.states()
    return checking.result()


async def states(settings: Settings, inputs: Iterable[Any]) -> None:
    """Raise `AssertionError` unless the rows in the store are those of one engine that reads `inputs` and no others."""
    checking = _Check(settings, ())
    await checking.rows(inputs)
    checking.result()


class _Check:
    def __init__(self, settings: Settings, leave_out: Collection[str]) -> None:
        self._settings = settings
        self._leave_out = frozenset(leave_out)
        self._wrong: list[str] = []
        self._counted: dict[str, int] = defaultdict(int)
        self._deviations = Deviations()
        self._said: dict[str, _Said] = {}
        self._buried: set[str] = set()
        # A batch that nobody can read is one dead letter; whoever reads the log gets one record for it, at its end.
        self._passed: dict[str, str] = {}
        self._again: list[tuple[str, _Said]] = []

    async def read(self) -> None:
        """What the workers said: each once, and what they said again."""
        topics, known = self._settings.topics, dict[frozenset[str], frozenset[str]]()
        async for record in each(self._settings, topics.dead_letters):
            letter = json.loads(record.value)
            self._buried.add(letter["id"])
            if "last_offset" in letter:
                self._passed[f"{letter['topic']}-{letter['partition']}-{letter['last_offset']}"] = letter["id"]
            self._counted["dead"] += 1
        async for record in each(self._settings, topics.forecasts):
            output = json.loads(record.value)
            said = _Said.of(output, known)
            self._counted["outputs"] += 1
            if output["id"].rsplit("-", 2)[1] != str(record.partition) or said.series.encode() != record.key:
                self._wrong.append(f"{output['id']} of {said.series} is in partition {record.partition}")
            if output["id"] in self._said:
                self._again.append((output["id"], said))
            else:
                self._said[output["id"]] = said
        if both := self._said.keys() & self._buried:
            self._wrong.append(f"{len(both)} readings have an output and a dead letter, such as {min(both)}")
        self._agree()

    def _agree(self) -> None:
        """What was said again is what was said before."""
        values: dict[str, list[float]] = defaultdict(list)
        for said in self._said.values():
            if said.numbers[0] is not None:
                values[said.series].append(said.numbers[0])
        scales = {series: float(np.std(some)) for series, some in values.items()}
        for id_, again in self._again:
            first = self._said[id_]
            if first.series in self._leave_out:
                continue
            if problem := self._differ(first, again, scales.get(first.series, 0.0)):
                self._wrong.append(f"{id_} was said again with {problem}: {first} and then {again}")

    def _differ(self, one: _Said, other: _Said, scale: float) -> str:
        if (one.names, one.series, len(one.numbers)) != (other.names, other.series, len(other.numbers)):
            return "other fields"
        relative = max(1.0, abs(one.numbers[0] or 0.0), scale)
        deviation = max(_apart(a, b) / relative for a, b in zip(one.numbers, other.numbers, strict=True))
        score = _apart(one.score, other.score) / max(1.0, abs(one.score or 0.0))
        self._deviations.output = max(self._deviations.output, deviation)
        self._deviations.score = max(self._deviations.score, score)
        if deviation > OUTPUT_CLOSE:
            return f"a number that is {deviation:.1e} off"
        if one.verdict != other.verdict:
            if one.score is None or abs(one.score - 1) > NEAR_THRESHOLD:
                return "another verdict"
            self._deviations.flips += 1
        return f"a score that is {score:.1e} off" if score > NEAR_THRESHOLD else ""

    async def states(self) -> None:
        """Every reading has an answer, every row is the oracle's, and every stored offset is the log's end."""
        settings = self._settings
        oracle = Oracle(settings)
        store = stores.connect(settings.state.url.get_secret_value(), buckets=settings.state.buckets, timeout_s=10)
        await store.open()
        missing: list[str] = []
        try:
            for tp in await partitions(settings, settings.topics.readings):
                records = [record async for record in each(settings, tp)]
                ids = [f"{tp.topic}-{tp.partition}-{record.offset}" for record in records]
                ids = [self._passed.get(id_, id_) for id_ in ids]
                self._counted["inputs"] += len(ids)
                missing += [id_ for id_ in ids if id_ not in self._said and id_ not in self._buried]
                if records:
                    await self._rows(oracle, store, tp, records)
        finally:
            await store.close()
        if missing:
            self._wrong.append(
                f"{len(missing)} of {self._counted['inputs']} readings have no output, such as {missing[:5]}"
            )
        if extra := len(self._said) + len(self._buried) + len(missing) - self._counted["inputs"]:
            self._wrong.append(f"{extra} answers belong to no reading")

    async def rows(self, inputs: Iterable[Any]) -> None:
        """Every row is the oracle's after `inputs`."""
        by_partition: dict[TopicPartition, list[Any]] = defaultdict(list)
        for record in sorted(inputs, key=lambda record: int(record.offset)):
            by_partition[TopicPartition(record.topic, record.partition)].append(record)
        oracle, state = Oracle(self._settings), self._settings.state
        store = stores.connect(state.url.get_secret_value(), buckets=state.buckets, timeout_s=10)
        await store.open()
        try:
            for tp, records in by_partition.items():
                await self._rows(oracle, store, tp, records)
        finally:
            await store.close()

    async def _rows(self, oracle: Oracle, store: stores.Store, tp: TopicPartition, records: Sequence[Any]) -> None:
        settings = self._settings
        at = PartitionId(settings.kafka.group_id, tp.topic, tp.partition)
        owner = f"check{time.time_ns():027d}"
        assigned = await store.assign(at, owner, stores.Identity("", 0, settings.state.buckets, "", ""))
        if assigned.offset != records[-1].offset + 1:
            self._wrong.append(f"{at}: the stored offset is {assigned.offset} and the log ends at {records[-1].offset}")
        rows = {key: row async for some in store.restore(at, owner, 0) for key, row in some}
        wanted, blamed = oracle.rows(tp, records, self._buried)
        self._counted["blamed"] += blamed
        for key in [key for key in wanted.keys() | rows.keys() if key.decode() in self._leave_out]:
            wanted.pop(key, None)
            rows.pop(key, None)
        if rows.keys() != wanted.keys():
            self._wrong.append(f"{at} has {len(rows)} rows, and should have {len(wanted)}")
            return
        keys = sorted(rows)
        mine = oracle.engine.layout.parse([rows[key] for key in keys])
        theirs = oracle.engine.layout.parse([wanted[key] for key in keys])
        for name in ("offset", "timestamp", "last", "since", "seen", "base", "interval", "filled", "made"):
            if not np.array_equal(mine[name], theirs[name], equal_nan=mine[name].dtype.kind == "f"):
                self._wrong.append(f"{at}: {name} of {_first_different(keys, mine[name], theirs[name])}")
        tracked = _relative(mine["body"]["tracked"], theirs["body"]["tracked"]).reshape(len(keys), -1).max(axis=1)
        tied = (tracked > STATE_CLOSE) & (tracked < TIE)
        self._deviations.ties += int(tied.sum())
        for name in oracle.engine.layout.fields:
            apart = _relative(mine["body"][name], theirs["body"][name])
            apart[tied] = 0.0
            worst = float(apart.max(initial=0.0))
            self._deviations.state[name] = max(self._deviations.state.get(name, 0.0), worst)
            if worst > STATE_CLOSE:
                row = int(apart.reshape(len(keys), -1).max(axis=1).argmax())
                self._wrong.append(f"{at}: {name} of {keys[row].decode()} is {worst:.1e} off")

    def result(self) -> Checked:
        """The counts, if everything holds."""
        if self._deviations.ties > 1 + self._counted["inputs"] / 10_000:
            self._wrong.append(f"{self._deviations.ties} series differ as if by ties, which are rare")
        if self._wrong:
            told = "\n".join(f"- {wrong}" for wrong in self._wrong[:_TOLD])
            more = f"\n  and {len(self._wrong) - _TOLD} more" if len(self._wrong) > _TOLD else ""
            raise AssertionError(f"CHECK does not hold ({self._deviations}):\n{told}{more}")
        inputs, outputs, dead = (self._counted[name] for name in ("inputs", "outputs", "dead"))
        return Checked(inputs, outputs, dead, outputs + dead - inputs, self._counted["blamed"], self._deviations)


class Oracle:
    """One engine that reads each log once."""

    def __init__(self, settings: Settings) -> None:
        self.engine = Stepper(
            settings.model.bundle,
            features=settings.input.values,
            detector=settings.detector,
            horizons=settings.model.horizons,
            gaps=settings.gaps,
            device="cpu",
        )
        self._codec = codecs.load(settings.input, self.engine.steps)

    def rows(
        self, tp: TopicPartition, records: Sequence[Any], buried: Collection[str]
    ) -> tuple[dict[bytes, bytes], int]:
        """Every row of a partition after its records without those of `buried`, and how many of these were good."""
        engine, handle, blamed = self.engine, tp.partition, 0
        engine.arena.open(handle)
        for start in range(0, len(records), 4096):
            some = records[start : start + 4096]
            timestamps = np.array([r.timestamp for r in some])
            decoded = self._codec.decode([r.key for r in some], [r.value for r in some], timestamps)
            dead = {i for i, r in enumerate(some) if f"{tp.topic}-{tp.partition}-{r.offset}" in buried}
            blamed += len(dead - decoded.bad.keys())
            good = np.array([i for i in range(len(some)) if i not in decoded.bad and i not in dead], np.int64)
            offsets = np.array([r.offset for r in some])
            slots = engine.arena.admit(handle, [decoded.series[i] for i in good])
            engine.step(Readings(slots, offsets[good], decoded.timestamp[good], decoded.value[good]))
        cut = engine.arena.cut(handle)
        return {key: row for some in cut.chunks(1000) for key, row in zip(*some, strict=True)}, blamed


def _flat(number: Any) -> Sequence[float | None]:
    return [number[name] for name in sorted(number)] if isinstance(number, dict) else [number]


def _apart(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return 0.0 if a == b else math.inf
    return abs(a - b)


def _relative(mine: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How far apart, relative to 1 + |theirs|; infinitely where only one of them is a number."""
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(mine - theirs) / (1 + np.abs(theirs))
    return np.where(same, 0.0, np.where(np.isfinite(apart), apart, np.inf))


def _first_different(keys: Sequence[bytes], mine: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> str:
    different = (mine != theirs).reshape(len(keys), -1).any(axis=1)
    if mine.dtype.kind == "f":
        different &= ~(np.isnan(mine) & np.isnan(theirs)).reshape(len(keys), -1).all(axis=1)
    row = int(different.argmax())
    return f"{int(different.sum())} series, such as {keys[row].decode()}: {mine[row]} and not {theirs[row]}"
