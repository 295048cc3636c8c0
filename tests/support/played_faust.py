"""An alerter over a Faust and a Kafka that are played."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from stream_gru.alerts.alerter import Alerter
from stream_gru.alerts.link import Record, UnavailableError
from stream_gru.alerts.runs import Alert
from stream_gru.alerts.table import Epochs, unpack_key
from stream_gru.metrics import Metrics
from tests.support.alert_records import payload

TOPIC = "anomalies"

SILENCE_S = 300.0


class Fake:
    """A Kafka in memory: the table and the alerts outlive an `Alerter`."""

    def __init__(self) -> None:
        self.generation = 1
        self.mine = {0, 1}
        self.log: list[tuple[int, bytes, bytes | None]] = []  # of the table
        self.alerts: list[Alert] = []
        self.calls: list[str] = []
        self.fetched: list[tuple[int, int, int]] = []
        self.first, self.end = 0, 0
        self.fail_at: set[int] = set()  # calls that Kafka does not take
        self.cut_after: int | None = None  # rows of a batch, and the process ends
        self.lose_at: int | None = None  # call during which the partition is taken away

    def owned(self, generation: int) -> set[int]:
        return self.mine if generation == self.generation else set()

    async def publish(self, alerts: Sequence[Alert]) -> None:
        self._call("publish")
        self.alerts += alerts

    async def store(self, partition: int, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        self._call("cursor" if unpack_key(rows[0][0])[1] is None else "store")
        for n, (key, value) in enumerate(rows):
            if n == self.cut_after and len(rows) > 1:
                raise asyncio.CancelledError
            assert unpack_key(key)[0] == partition
            self.log.append((partition, key, value))

    async def starts(self, partitions: Iterable[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, self.first)

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, self.end)

    async def fetch(self, partition: int, start: int, stop: int, generation: int) -> list[Record]:
        self._call("fetch")
        self.fetched.append((partition, start, stop))
        return [record(n, partition=partition, generation=generation) for n in range(max(start, self.first), stop)]

    def recovered(self) -> tuple[dict[bytes, bytes], set[bytes]]:
        """The table as its log says, and the keys of which the log's last word does not count."""
        rows: dict[bytes, bytes] = {}
        epochs = Epochs()
        for offset, (partition, key, value) in enumerate(self.log):
            if not epochs.counts(partition, offset, key, value):
                continue
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        return rows, epochs.overruled

    @property
    def rows(self) -> dict[bytes, bytes]:
        return self.recovered()[0]

    def statuses(self) -> list[tuple[str, str]]:
        return [(alert.id, alert.status) for alert in self.alerts]

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.lose_at == len(self.calls):
            self.generation += 1
        if len(self.calls) in self.fail_at:
            raise UnavailableError("no leader")


async def started(link: Fake, metrics: Metrics | None = None) -> Alerter:
    made = Alerter(link, metrics or Metrics(), TOPIC, SILENCE_S)
    rows, overruled = link.recovered()
    await made.restore(rows.items(), link.mine, overruled)
    return made


def record(position: int, value: bytes | None = None, partition: int = 0, generation: int = 1) -> Record:
    """At `position`, by default the first anomalous reading of a series of its own."""
    value = payload(position, f"s{position}", alert=True) if value is None else value
    return Record(partition, position, position * 1000, value, generation)
