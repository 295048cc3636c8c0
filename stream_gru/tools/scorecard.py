"""What became of every reading, and how well injected anomalies were found. No I/O, no clock."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_gru.records.output import OutputRecord
from stream_gru.training.fleet import Label

RECENT = 10_000
LONGEST_MS = 60_000  # latencies above count as this
SHOWN = 12

Runs = Mapping[str, Sequence[tuple[int, int]]]  # series -> first and last timestamp of each run of flags, in order


@dataclass(frozen=True, slots=True)
class Detection:
    """Injected anomalies against flags."""

    injected: Counter[str] = field(default_factory=Counter)  # by kind
    found: Counter[str] = field(default_factory=Counter)
    false_alarms: int = 0


@dataclass(frozen=True, slots=True)
class Flagged:
    """The first flagged reading of a run."""

    output: OutputRecord
    seen_ms: int  # Kafka's timestamp of the output


class Scorecard:
    """Pairs readings with their outputs by id, whichever is seen first.

    Latency is Kafka's timestamp of the output less that of the reading, in ms.
    """

    def __init__(self) -> None:
        self.readings = self.outputs = self.dead_letters = self.repeated = 0
        self.recent: deque[int] = deque(maxlen=RECENT)  # latencies
        self.latest: deque[Flagged] = deque(maxlen=SHOWN)
        self.labels: list[Label] = []
        self.runs: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._latencies = np.zeros(LONGEST_MS + 1, np.int64)
        self._next: dict[str, int] = defaultdict(int)  # topic-partition -> offset after the last reading seen
        self._waiting: dict[str, int] = {}  # id -> Kafka's timestamp of a reading without an answer
        self._early: dict[str, int] = {}  # id -> Kafka's timestamp of an answer seen before its reading
        self._flagged: set[str] = set()  # series in a run

    @property
    def lag(self) -> int:
        """Readings that have no answer yet."""
        return len(self._waiting)

    def reading(self, topic: str, partition: int, offset: int, timestamp: int) -> None:
        """A record of a readings topic."""
        self.readings += 1
        place = f"{topic}-{partition}"
        self._next[place] = offset + 1
        answered = self._early.pop(f"{place}-{offset}", None)
        if answered is None:
            self._waiting[f"{place}-{offset}"] = timestamp
        else:
            self._took(answered - timestamp)

    def output(self, output: OutputRecord, timestamp: int) -> None:
        """A record of the forecasts topic."""
        if not self._answer(output.id, timestamp):
            return
        self.outputs += 1
        if output.level in ("missing", "late"):  # nothing was judged: a run goes on
            return
        if not output.is_anomaly:
            self._flagged.discard(output.series)
            return
        runs = self.runs[output.series]
        if output.series in self._flagged:
            runs[-1] = (runs[-1][0], output.timestamp)
        else:
            self._flagged.add(output.series)
            runs.append((output.timestamp, output.timestamp))
            self.latest.append(Flagged(output, timestamp))

    def dead_letter(self, reading_id: str, timestamp: int) -> None:
        """A record of the dead-letters topic."""
        self.dead_letters += self._answer(reading_id, timestamp)

    def percentile(self, share: float) -> float | None:
        """Latency in ms that `share` of all readings did not exceed; None before the first."""
        total = np.cumsum(self._latencies)
        return float(np.searchsorted(total, share * total[-1])) if total[-1] else None

    def missing(self, some: int = 5) -> list[str]:
        """Ids of readings that have no answer, the first few."""
        return sorted(self._waiting)[:some]

    def label_of(self, output: OutputRecord, margin_ms: int) -> Label | None:
        """The injected anomaly that explains a flag."""
        return next((label for label in reversed(self.labels) if _explains(label, output, margin_ms)), None)

    def _answer(self, reading_id: str, timestamp: int) -> bool:
        """Whether this is the first answer to that reading."""
        sent = self._waiting.pop(reading_id, None)
        if sent is not None:
            self._took(timestamp - sent)
            return True
        place, _, offset = reading_id.rpartition("-")
        if int(offset) < self._next[place] or reading_id in self._early:
            self.repeated += 1
            return False
        self._early[reading_id] = timestamp
        return True

    def _took(self, milliseconds: int) -> None:
        bounded = min(max(milliseconds, 0), LONGEST_MS)  # clocks of broker and clients may differ
        self._latencies[bounded] += 1
        self.recent.append(bounded)


def detection(labels: Iterable[Label], runs: Runs, margin_ms: int, until_ms: int) -> Detection:
    """Hold `runs` of flags against `labels`.

    An anomaly counts once it is over, at `until_ms`. It is found when a run has a flag from its start to `margin_ms`
    after its end. A run that has no flag within any such window of its series is a false alarm.
    """
    result = Detection()
    explained: set[tuple[str, int]] = set()
    for label in labels:
        own = runs.get(label.series, ())
        first = bisect_left(own, label.start, key=lambda run: run[1])  # the first run that ends after the start
        hit = False
        while first < len(own) and own[first][0] <= label.end + margin_ms:
            explained.add((label.series, first))
            hit = True
            first += 1
        if label.end <= until_ms:
            result.injected[label.kind] += 1
            result.found[label.kind] += hit
    alarms = sum(map(len, runs.values())) - len(explained)
    return Detection(result.injected, result.found, alarms)


def _explains(label: Label, output: OutputRecord, margin_ms: int) -> bool:
    return label.series == output.series and label.start <= output.timestamp <= label.end + margin_ms
