"""Simulated readings through a worker, and what is known of them while they are on their way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from stream_gru.errors import StreamGruError
from stream_gru.kafka.tail import reader
from stream_gru.records import dead_letters, output
from stream_gru.tools.scorecard import Detection, Scorecard, detection
from stream_gru.tools.simulate import Simulation, simulate
from stream_gru.tools.stage import Stage
from stream_gru.training.fleet import Label

STEP_S = 300.0  # between two readings of a sensor, on its own clock: 288 a day
MARGIN = 10  # readings after its end within which an anomaly may still be noticed
POLL_MS = 50
GRACE_S = 30.0  # for the last outputs


def simulation(rate: float, series: int, seed: int, duration_s: float | None, young: int) -> Simulation:
    """Sensors whose day passes in a minute or so, with anomalies as soon as they are no longer `young` (readings)."""
    return Simulation(
        rate=rate,
        series=series,
        seed=seed,
        duration_s=duration_s,
        anomalies_per_hour=2.5 * rate,
        speedup=STEP_S * rate / series,
        quiet=young,
    )


class Demo:
    """One simulation on a stage."""

    def __init__(self, on: Stage, what: Simulation) -> None:
        self.stage, self.simulation = on, what
        self.score = Scorecard()
        self.sent = 0
        self._until_ms = 0  # timestamp of the last reading sent
        self._began = time.monotonic()
        self._sending_s = 0.0

    async def run(self) -> None:
        """Send, and read what comes back, until every reading has its answer or the grace is over.

        Raises `StreamGruError` when the worker ends, or Kafka goes away.
        """
        names = self.stage.settings.topics
        watched = [*names.readings, names.forecasts, names.dead_letters]
        async with reader(self.stage.settings, watched, from_beginning=True) as consumer:
            self._began = time.monotonic()
            sending = asyncio.create_task(
                simulate(self.stage.settings, self.simulation, self._note_labels, self._note_sent)
            )
            try:
                deadline = float("inf")
                while (self.lag or not sending.done()) and time.monotonic() < deadline:
                    self._take(await consumer.getmany(timeout_ms=POLL_MS))
                    self._check_worker()
                    if sending.done() and deadline == float("inf"):
                        sending.result()
                        deadline = time.monotonic() + GRACE_S
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending

    @property
    def lag(self) -> int:
        """Readings sent that have no output or dead letter yet."""
        return self.sent - self.score.outputs - self.score.dead_letters

    @property
    def margin_ms(self) -> int:
        """How long after its end an anomaly may still be noticed, on the sensors' clock."""
        return int(MARGIN * self.simulation.step_ms)

    def detection(self) -> Detection:
        """Of the anomalies that are over."""
        return detection(self.score.labels, self.score.runs, self.margin_ms, self._until_ms)

    def summary(self) -> dict[str, Any]:
        """The figures of the run."""
        score, found = self.score, self.detection()
        return {
            "readings": self.sent,
            "outputs": score.outputs,
            "dead_letters": score.dead_letters,
            "repeated": score.repeated,
            "readings_per_s": round(self.sent / self._sending_s, 1) if self.sent else 0.0,
            "latency_p50_ms": score.percentile(0.5),
            "latency_p99_ms": score.percentile(0.99),
            "lag": self.lag,
            "injected": found.injected.total(),
            "found": found.found.total(),
            "false_alarms": found.false_alarms,
        }

    def _note_labels(self, labels: Sequence[Label]) -> None:
        self.score.labels += labels

    def _note_sent(self, sent: int, until_ms: int) -> None:
        self.sent, self._until_ms = sent, until_ms
        self._sending_s = time.monotonic() - self._began

    def _check_worker(self) -> None:
        worker = self.stage.worker
        if worker.returncode is not None:
            raise StreamGruError(f"the worker ended with code {worker.returncode}\n{worker.tail()}")

    def _take(self, batches: dict[Any, list[Any]]) -> None:
        names, score = self.stage.settings.topics, self.score
        for partition, batch in batches.items():
            if partition.topic == names.forecasts:
                for record in batch:
                    score.output(output.decode_output(record.value), record.timestamp)
            elif partition.topic == names.dead_letters:
                for record in batch:
                    score.dead_letter(dead_letters.decode(record.value).id, record.timestamp)
            else:
                for record in batch:
                    score.reading(record.topic, record.partition, record.offset, record.timestamp)
