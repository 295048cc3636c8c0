"""What ties an `Alerter` to Kafka: its calls, and the form in which records come. `faust_link` has Faust do it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stream_gru.alerts.runs import Alert


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the anomalies topic as it was delivered."""

    partition: int
    position: int  # its offset
    seen: int  # Kafka's timestamp, epoch ms
    value: bytes | None
    generation: int  # of the assignment under which it was fetched
    source: Any = None  # whatever the caller wants to find again


class UnavailableError(Exception):
    """Kafka did not take or answer something now; it may be tried again."""


class AlertLink(Protocol):
    """Every call may raise `UnavailableError`."""

    @property
    def generation(self) -> int:
        """Of the present assignment."""
        ...

    def owned(self, generation: int) -> set[int]:
        """The partitions assigned under `generation`; none when it is over or a rebalance is on."""
        ...

    async def publish(self, alerts: Sequence[Alert]) -> None:
        """Return when all are acknowledged."""
        ...

    async def store(self, partition: int, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write rows of the table (None: delete) in this order; return when all are acknowledged."""
        ...

    async def starts(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset of the first record that each partition still has."""
        ...

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset after the last record of each partition."""
        ...

    async def fetch(self, partition: int, start: int, stop: int, generation: int) -> list[Record]:
        """The records from `start` up to `stop` that Kafka still has."""
        ...
