"""A scored batch -> the records of its answers: forecasts, anomalies and dead letters."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from aiokafka import TopicPartition

from stream_gru.codecs import Decoded
from stream_gru.columns import Forecasts, Ints, Level
from stream_gru.kafka.publisher import Shorten
from stream_gru.metrics import Metrics
from stream_gru.records import dead_letters
from stream_gru.records.dead_letters import Reason
from stream_gru.worker.intake import Admitted, Polled
from stream_gru.worker.live import Live, Parts

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Messages:
    """Records for one partition of one topic."""

    topic: str
    partition: int
    keys: list[bytes | None]
    values: list[bytes]
    shorten: Shorten | None = None  # makes one that is too large for its topic smaller


@dataclass(slots=True)
class BatchOutputs:
    """The records that answer one batch."""

    messages: list[Messages] = field(default_factory=list)
    born: Ints = field(default_factory=lambda: np.empty(0, np.int64))  # Kafka timestamps of the readings answered, ms


class Encoder:
    """Makes the records of a batch and counts what they say."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._told: set[tuple[TopicPartition, Reason]] = set()

    def encode(self, polled: Polled, decoded: Decoded, admitted: Admitted, forecasts: Forecasts) -> BatchOutputs:
        """What is to be published of a batch: nothing of records whose answers were acknowledged before (rule R13)."""
        count(self._parts.metrics, forecasts)
        outputs = BatchOutputs()
        for rows in polled.spans:
            muted = rows.live.state.muted(polled.offset[rows.start : rows.stop])
            first, last = np.searchsorted(admitted.index, (rows.start, rows.stop))
            loud = ~muted[admitted.index[first:last] - rows.start]
            said = np.flatnonzero((forecasts.level[first:last] != Level.COVERED) & loud) + first
            if len(said):
                index = admitted.index[said]
                outputs.messages += self._answers(rows.live, index, polled, decoded, forecasts.take(said))
                outputs.born = np.concatenate((outputs.born, polled.timestamp[index]))
            bad = [row for row in decoded.bad if rows.start <= row < rows.stop and not muted[row - rows.start]]
            if bad:
                outputs.messages.append(self._dead(rows.live, polled, decoded, sorted(bad)))
        return outputs

    def _answers(
        self, live: Live, index: Ints, polled: Polled, decoded: Decoded, forecasts: Forecasts
    ) -> Iterator[Messages]:
        """The forecasts of these rows of one partition, and again those of them that belong to anomalies."""
        topics, tp = self._parts.settings.topics, live.tp
        series = [decoded.series[row] for row in index.tolist()]
        ids = [f"{tp.topic}-{tp.partition}-{offset}" for offset in polled.offset[index].tolist()]
        model = self._parts.engine.bundle.name
        values = self._parts.codec.encode(series, decoded.timestamp[index], ids, model, forecasts)
        yield Messages(topics.forecasts, tp.partition, list(series), values)
        told = np.flatnonzero(forecasts.is_anomaly | forecasts.closes).tolist()
        if told:
            yield Messages(topics.anomalies, tp.partition, [series[i] for i in told], [values[i] for i in told])

    def _dead(self, live: Live, polled: Polled, decoded: Decoded, bad: list[int]) -> Messages:
        keys: list[bytes | None] = []
        values = []
        for row in bad:
            reason, detail = decoded.bad[row], decoded.detail.get(row, "")
            self._parts.metrics.dead_letters.labels(str(reason)).inc()
            offset = int(polled.offset[row])
            unreadable = polled.unreadable.get(row)
            if unreadable is not None:
                self._tell(live, reason, detail)
            key, value = dead_letters.encode(
                reason,
                live.tp.topic,
                live.tp.partition,
                unreadable.first if unreadable else offset,
                int(polled.timestamp[row]),
                polled.keys[row],
                polled.payloads[row],
                detail=detail,
                last_offset=offset if unreadable else None,
                max_bytes=self._parts.settings.input.dead_letter_bytes,
            )
            keys.append(key)
            values.append(value)
        topic = self._parts.settings.topics.dead_letters
        return Messages(topic, live.tp.partition, keys, values, dead_letters.shorten)

    def _tell(self, live: Live, reason: Reason, detail: str) -> None:
        """Aloud the first time; whoever sends such batches may send many, and the metric counts them all."""
        if (live.tp, reason) not in self._told:
            self._told.add((live.tp, reason))
            log.error(
                "%s: %s; they are one dead letter, and later ones of the partition are only counted", live.id, detail
            )


def count(metrics: Metrics, forecasts: Forecasts) -> None:
    """What the batch says, as metrics."""
    levels = np.bincount(forecasts.level, minlength=len(Level))
    metrics.readings.inc(int(levels.sum() - levels[Level.COVERED]))
    for level in Level:
        if level is not Level.COVERED and levels[level]:
            metrics.levels.labels(level.name.lower()).inc(int(levels[level]))
    metrics.anomalies.inc(int(forecasts.is_anomaly.sum()))
    metrics.alerts.inc(int(forecasts.alert.sum()))
