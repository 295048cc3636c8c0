"""When a series is firing: a state machine over the anomalies topic, without any I/O.

The anomalies topic holds every reading with `is_anomaly` and the first one after them that is not. A *run* is such a
stretch of one series. It begins as `PENDING` with its first anomalous reading and starts `FIRING` at the first reading
with `alert`: `is_anomaly` says how the series is, `alert` says that someone should be told now, and telling people is
what this topic is for. It ends with the first reading that is not anomalous, or when the series falls silent; a series
that returns from its silence still anomalous fires again at once, for its end has been announced. A reading that came
late belongs to no run: it says how the series was.

Whoever reads the alerts sees each run once: `firing`, then `resolved`, under one id, the output id of the run's first
reading. The same record may come again, from the scorer (a new record with the old id) or from Kafka (the same record):
a run knows the last reading that it took in, and what is at or before it changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from stream_gru.records.output import OutputRecord, Quantity

_ID = re.compile(r"(.+)-([0-9]{1,10})-([0-9]{1,19})")

Interval = list[float | None] | dict[str, list[float | None]] | None

FORGET_SILENT_MS = 7 * 86_400_000  # after so long a series that fell silent while firing is as good as new
KEEP_ENDED_MS = 60_000  # how long an ended run stays to recognise its own replay; then the cursor does


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a reading stands: the same key on two partitions, or in two topics, is two series."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, output_id: str) -> Place:
        """The reading that an output answers. Raises `ValueError` when this is not the id of one."""
        parts = _ID.fullmatch(output_id)
        if parts is None:
            raise ValueError("an id is topic-partition-offset")
        return cls(parts[1], int(parts[2]), int(parts[3]))


class Worst(msgspec.Struct, frozen=True):
    """The reading of a run with the highest score."""

    actual: Quantity
    expected: Quantity
    interval: Interval
    score: float | None
    model: str


class Status(Enum):
    """Where a run is in its life."""

    PENDING = "pending"  # anomalous, but nobody has been told
    FIRING = "firing"
    SILENT = "silent"  # announced as resolved, but not seen to be normal
    ENDED = "ended"


class Run(msgspec.Struct, frozen=True):
    """A stretch of anomalous readings of one series. Times are epoch ms."""

    id: str  # of its first reading
    status: Status
    first: int  # timestamp of its first reading
    last: int  # timestamp of the latest reading taken in
    place: Place  # of the latest reading taken in
    seen: int  # Kafka's own timestamp of the latest record taken in
    worst: Worst
    epoch: int = 0  # of the owner that wrote it

    def covers(self, output: OutputRecord, place: Place) -> bool:
        """Whether the reading was taken in before.

        An offset that falls back while time goes on is not a replay: the topic was made anew.
        """
        return place.offset <= self.place.offset and output.timestamp <= self.last


class Alert(msgspec.Struct, frozen=True):
    """A record of the alerts topic. Its Kafka key is `id`."""

    id: str
    status: str  # firing, resolved
    series: str
    topic: str  # of the readings
    partition: int
    start: int  # epoch ms
    end: int | None  # epoch ms: the reading that was normal again, or the last one before the silence
    reason: str | None  # of the end: normal, silent
    actual: Quantity  # at the highest score so far, as are the next three
    expected: Quantity
    interval: Interval  # [lower, upper]
    score: float | None
    model: str


class Cursor(msgspec.Struct, frozen=True):
    """How far a partition of the anomalies topic was read, for runs that are no longer kept."""

    next: int  # offset in the anomalies topic; every record before it was taken in, and what became of it is stored
    ended: dict[str, tuple[int, int]] = {}  # topic of the readings -> (offset, timestamp) of the last run dropped
    epoch: int = 0  # of the owner that wrote it

    def covers(self, output: OutputRecord, place: Place) -> bool:
        """Whether the reading belongs to a run that ended and was dropped."""
        offset, timestamp = self.ended.get(place.topic, (-1, -1))
        return place.offset <= offset and output.timestamp <= timestamp


Key = tuple[str, str]  # topic of the readings, series


@dataclass(slots=True)
class Change:
    """What a batch does, in the order in which it is made durable.

    Any beginning of it may be all that is stored. What covers the runs that are dropped comes before them; how far was
    read comes after every run, for one that is not stored yet must be read again.
    """

    cursor: Cursor | None = None
    alerts: list[Alert] = field(default_factory=list)
    runs: dict[Key, Run | None] = field(default_factory=dict)  # None: dropped
    read: Cursor | None = None


@dataclass(slots=True)
class Ledger:
    """The runs of one partition of the anomalies topic."""

    runs: dict[Key, Run] = field(default_factory=dict)
    cursor: Cursor = field(default_factory=lambda: Cursor(0))

    def firing(self) -> int:
        """How many series are firing."""
        return sum(run.status is Status.FIRING for run in self.runs.values())

    def apply(self, change: Change) -> None:
        """Take over a change that has been published and stored."""
        for key, run in change.runs.items():
            if run is None:
                self.runs.pop(key, None)
            else:
                self.runs[key] = run
        self.cursor = change.read or change.cursor or self.cursor

    def take(self, records: Iterable[tuple[OutputRecord, Place, int, int]]) -> Change:
        """What (output, place, Kafka timestamp, position) records, in the order of their positions, change."""
        change = Change()
        for output, place, seen, position in records:
            if output.level == "late":
                continue
            key = (place.topic, output.series)
            run = change.runs.get(key) or self.runs.get(key)
            if run.covers(output, place) if run else self.cursor.covers(output, place):
                continue
            after = _advance(run, output, place, seen)
            if after is None:
                continue
            change.runs[key] = after
            change.alerts += _announce(run, after, output.series)
            change.read = msgspec.structs.replace(self.cursor, next=position + 1)
        return change

    def hush(self, now: int, silence_ms: int) -> Change:
        """End the runs of series that have been silent for `silence_ms` at `now`, in Kafka's time; drop ended runs.

        The cursor that covers the dropped ones is in the same change; store it before them.
        """
        change = Change()
        ended = dict(self.cursor.ended)
        for key, run in self.runs.items():
            age = now - run.seen
            if run.status is Status.FIRING and age >= silence_ms:
                change.runs[key] = msgspec.structs.replace(run, status=Status.SILENT)
                change.alerts.append(_alert(run, key[1], "resolved", run.last, "silent"))
            elif _over(run, age, silence_ms):
                change.runs[key] = None
                offset, timestamp = ended.get(key[0], (-1, -1))
                ended[key[0]] = (max(offset, run.place.offset), max(timestamp, run.last))
        if ended != self.cursor.ended or None in change.runs.values():
            change.cursor = Cursor(self.cursor.next, ended)
        return change


def _over(run: Run, age: int, silence_ms: int) -> bool:
    """Whether a run may be dropped."""
    match run.status:
        case Status.ENDED:
            return age >= KEEP_ENDED_MS
        case Status.PENDING:
            return age >= max(silence_ms, KEEP_ENDED_MS)
        case Status.SILENT:
            return age >= max(silence_ms, FORGET_SILENT_MS)
        case Status.FIRING:
            return False


def _advance(run: Run | None, output: OutputRecord, place: Place, seen: int) -> Run | None:
    """The run after a reading; None: there was none and there is none."""
    open_ = run is not None and run.status in (Status.PENDING, Status.FIRING)
    if not output.is_anomaly:
        if run is None:
            return None
        return msgspec.structs.replace(run, status=Status.ENDED, last=output.timestamp, place=place, seen=seen)
    worst = Worst(output.y, output.yhat, _interval(output), output.anomaly_score, output.model)
    tell = output.alert or (run is not None and run.status in (Status.FIRING, Status.SILENT))
    if run is None or not open_:
        status = Status.FIRING if tell else Status.PENDING
        return Run(output.id, status, output.timestamp, output.timestamp, place, seen, worst)
    return msgspec.structs.replace(
        run,
        status=Status.FIRING if tell else Status.PENDING,
        last=output.timestamp,
        place=place,
        seen=seen,
        worst=worst if _score(worst) > _score(run.worst) else run.worst,
    )


def _announce(before: Run | None, after: Run, series: str) -> list[Alert]:
    was_firing = before is not None and before.status is Status.FIRING
    if after.status is Status.FIRING and not was_firing:
        return [_alert(after, series, "firing", None, None)]
    if after.status is Status.ENDED and was_firing:
        return [_alert(after, series, "resolved", after.last, "normal")]
    return []


def _alert(run: Run, series: str, status: str, end: int | None, reason: str | None) -> Alert:
    worst = run.worst
    return Alert(
        id=run.id,
        status=status,
        series=series,
        topic=run.place.topic,
        partition=run.place.partition,
        start=run.first,
        end=end,
        reason=reason,
        actual=worst.actual,
        expected=worst.expected,
        interval=worst.interval,
        score=worst.score,
        model=worst.model,
    )


def _interval(output: OutputRecord) -> Interval:
    lower, upper = output.yhat_lower, output.yhat_upper
    if isinstance(lower, dict) and isinstance(upper, dict):
        return {name: [lower[name], upper.get(name)] for name in lower}
    if isinstance(lower, dict) or isinstance(upper, dict) or (lower is None and upper is None):
        return None
    return [lower, upper]


def _score(worst: Worst) -> float:
    return float("-inf") if worst.score is None else worst.score
