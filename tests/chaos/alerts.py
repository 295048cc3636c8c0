"""CHECK of the alerter: from the anomalies topic follows which alerts there must be, and each is there under its id."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass

from stream_gru.alerts.runs import Ledger, Place
from stream_gru.records.output import OutputRecord, decode_output
from stream_gru.settings import Settings
from tests.support.reading import each

Told = tuple[str, str]  # id, status


@dataclass
class Alerts:
    """What was told and what should have been, each (id, status) as often as it was."""

    wanted: Counter[Told]
    told: Counter[Told]

    @property
    def missing(self) -> set[Told]:
        """Not told yet."""
        return self.wanted.keys() - self.told.keys()

    @property
    def extra(self) -> set[Told]:
        """Told without a reason."""
        return self.told.keys() - self.wanted.keys()

    @property
    def repeated(self) -> int:
        """Told again under the same id: what a crash between the alert and its record may do."""
        return self.told.total() - len(self.told)


async def alerts(settings: Settings) -> Alerts:
    """Read both topics. `alerts.silence_s` must be longer than the run: silence is not in the anomalies topic."""
    by_partition: dict[int, list[tuple[OutputRecord, Place, int, int]]] = defaultdict(list)
    async for record in each(settings, settings.topics.anomalies):
        output = decode_output(record.value)
        by_partition[record.partition].append((output, Place.of(output.id), record.timestamp, record.offset))
    wanted: Counter[Told] = Counter()
    for records in by_partition.values():
        wanted.update((alert.id, alert.status) for alert in Ledger().take(records).alerts)
    told: Counter[Told] = Counter()
    async for record in each(settings, settings.topics.alerts):
        alert = json.loads(record.value)
        told[alert["id"], alert["status"]] += 1
    return Alerts(wanted, told)
