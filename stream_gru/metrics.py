"""What a worker tells Prometheus. The only file that imports prometheus_client; nothing here is labelled by series.

Names follow vmanomaly's self-monitoring where it has one, with the prefix ``stream_gru_``.
"""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from stream_gru import __version__
from stream_gru.columns import Level
from stream_gru.errors import SettingsError
from stream_gru.records.dead_letters import Reason

if TYPE_CHECKING:
    from stream_gru.engine.gates import Distribution

STAGES = ("queue", "decode", "load", "step", "encode", "publish", "checkpoint", "commit")
SERVERS = ("kafka", "store")  # also the parts of the health that speak of them
# Upper bounds of the buckets of histograms, each set from well below what a good day shows to what an outage does.
_STAGE_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_LATENCY_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0, 10.0, 60.0, 600.0)
_BATCH_RECORDS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


class BulkHistogram(Collector):
    """A histogram that takes a whole array at once; prometheus_client's own takes one value a call."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        self._name, self._text = name, text
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0

    def observe(self, values: npt.NDArray[np.float64]) -> None:
        """Count every one of `values`."""
        self._counts += np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
        self._sum += float(values.sum())

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at a scrape."""
        names = [*(str(bound) for bound in self._bounds.tolist()), "+Inf"]
        buckets = list(zip(names, np.cumsum(self._counts).tolist(), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)


class GateHistogram(Collector):
    """The gates' activations by gate. They are counted where the model is stepped; this shows what was fetched last."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._shown: Mapping[str, Distribution] = {}

    def show(self, gates: Mapping[str, Distribution]) -> None:
        """Replace what is shown."""
        self._shown = gates

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at a scrape."""
        family = HistogramMetricFamily(self._name, self._text, labels=["gate"])
        for gate, (bounds, counts, total) in self._shown.items():
            names = [*map(str, bounds), "+Inf"]
            family.add_metric([gate], list(zip(names, np.cumsum([*counts, 0]).tolist(), strict=True)), total)
        yield family


class Metrics:
    """One registry with every metric of a worker as an attribute."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._of_readings()
        self._of_the_line()
        self._of_the_state()
        self._of_alerts_and_commands()
        self._of_the_process()
        # A child that is first scraped with a count in it is invisible to rate(): all of them are there from the start.
        for stage in STAGES:
            self.stage.labels(stage)
        for reason in Reason:
            self.dead_letters.labels(reason.value)
        for level in list(Level)[: Level.COVERED]:
            self.levels.labels(level.name.lower())
        for server in SERVERS:
            self.writer_errors.labels(server)
            self.server_up.labels(server)

    def _of_readings(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.readings = counter(
            "model_datapoints_accepted", "Readings taken in; records that became dead letters are not counted."
        )
        self.outputs = counter("model_datapoints_produced", "Forecast records that Kafka acknowledged.")
        self.anomalies = counter("anomalies", "Readings flagged as anomalous.")
        self.alerts = counter("alerts", "Readings at which someone should be told.")
        self.levels = counter("readings_by_level", "Readings by level, which is what their outputs say.", "level")
        self.dead_letters = counter("dead_letters", "Records that became dead letters, by reason.", "reason")
        self.lag = gauge("reader_lag", "Records of a partition that were not read yet.", "topic", "partition")
        self.partitions = gauge("reader_partitions", "Partitions of readings that this worker owns and reads.")
        self.gaps = counter("gaps", "Ranges of records that Kafka deleted before they were read.")

    def _of_the_line(self) -> None:
        self.runs = self._counter("model_runs", "Batches scored.")
        self.batch = self._histogram("batch_size", "Records in one batch.", _BATCH_RECORDS)
        self.stage = self._histogram(
            "stage_duration_seconds",
            "Seconds that one batch spent in one stage; in the stage queue its oldest record waited in Kafka.",
            _STAGE_S,
            "stage",
        )
        self.latency = BulkHistogram(
            "stream_gru_latency_seconds",
            "Seconds from a reading's Kafka timestamp to the acknowledgement of its output.",
            _LATENCY_S,
        )
        self.registry.register(self.latency)
        self.gates = GateHistogram(
            "stream_gru_gate_activation",
            "Activations of the model's gates in a sample of the readings; the setting metrics.gates turns it on.",
        )
        self.registry.register(self.gates)
        self.writer_errors = self._counter(
            "writer_errors", "Checkpoints and publications that had to be repeated, by server.", "target"
        )

    def _of_the_state(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.rows = gauge("state_rows", "Rows of state in memory, one for each series.")
        self.row_bytes = gauge("state_row_bytes", "Bytes of one row of state.")
        self.hits = counter("state_hits", "Readings whose row was in memory.")
        self.misses = counter("state_misses", "Series whose row had to be looked up in the store.")
        self.evictions = counter("state_evictions", "Rows dropped from memory to make room; the store keeps them.")
        self.conflicts = counter(
            "state_conflicts", "Calls that the store refused because another worker owns the partition."
        )
        self.checkpoints = counter("state_checkpoints", "Checkpoints that the store confirmed, one a partition.")
        self.checkpoint_rows = counter("state_checkpoint_rows", "Rows written by confirmed checkpoints.")
        self.checkpoint_age = gauge(
            "state_checkpoint_age_seconds", "Seconds since the last checkpoint of the partition that waits longest."
        )
        self.lost = counter(
            "state_lost", "Partitions whose state was missing in the store and was rebuilt from what Kafka retains."
        )

    def _of_alerts_and_commands(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.alert_records = counter(
            "alert_records", "Records that the alerts topic acknowledged, by status: firing or resolved.", "status"
        )
        self.firing = gauge("series_firing", "Series with an open alert in this worker's partitions.")
        self.unreadable = counter(
            "control_unreadable", "Records of the anomalies and commands topics that could not be read.", "topic"
        )
        self.control_restarts = counter("control_restarts", "Times that the alerter was started again after an error.")
        self.commands = counter("commands", "Commands that this worker answered.", "command", "status")

    def _of_the_process(self) -> None:
        gauge = self._gauge
        self.device_memory = gauge("device_memory_bytes", "Bytes that the model and the rows take on their device.")
        self.server_up = gauge("server_up", "1 while this worker gets answers from the server, else 0.", "server")
        self.ready = gauge("ready", "1 while this worker answers /ready with 200, else 0.")
        self.started = gauge("start_time_seconds", "Time at which this worker started, in epoch seconds.")
        self.started.set_to_current_time()
        self.model = Info("stream_gru_model", "The bundle in use.", registry=self.registry)
        self.version = Info("stream_gru_version", "The version of stream_gru.", registry=self.registry)
        self.version.info({"version": __version__})

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"stream_gru_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"stream_gru_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"stream_gru_{name}", text, labels, buckets=buckets, registry=self.registry)


@dataclass
class Health:
    """What /health and /ready say: each part reports for itself, and every part must be well."""

    parts: dict[str, str | None] = field(default_factory=dict)  # name -> why it isn't ready, None when it is
    stalled: str | None = None  # set by the watchdog: the process is about to end

    def report(self, part: str, problem: str | None = None) -> None:
        """Say that `part` is ready, or why not."""
        self.parts[part] = problem

    @property
    def ready(self) -> bool:
        """Every part is well and nothing is stalled."""
        return self.stalled is None and bool(self.parts) and not any(self.parts.values())

    def detail(self) -> dict[str, Any]:
        """The JSON body of both endpoints."""
        return {"ready": self.ready, "stalled": self.stalled, "parts": {k: v or "ok" for k, v in self.parts.items()}}


class StatusServer:
    """/metrics, /health and /ready on a thread of its own, so that they answer while the event loop is stuck."""

    def __init__(
        self, host: str, port: int, metrics: Metrics, health: Health, refresh: Callable[[], None] = lambda: None
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    metrics.ready.set(health.ready)
                    for server in SERVERS:
                        metrics.server_up.labels(server).set(health.parts.get(server) is None)
                    refresh()
                    encode, kind = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, kind, encode(metrics.registry))
                elif path in ("/health", "/ready"):
                    well = health.ready if path == "/ready" else health.stalled is None
                    self._answer(200 if well else 503, "application/json", json.dumps(health.detail()).encode())
                else:
                    self._answer(404, "text/plain", b"there are /metrics, /health and /ready\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Scrapes are not worth a log line each."""

        with _listening(host, port):
            self._http = ThreadingHTTPServer((host, port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()


def require_address(host: str, port: int) -> None:
    """Raise `SettingsError` where a `StatusServer` could not listen; one that does already is no hindrance."""
    with _listening(host, port), socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


@contextmanager
def _listening(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:  # the latter for what can't be the name of a host
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = "; is another worker here? Port 0 takes a free one" if used else ""
        raise SettingsError(f"metrics.host, metrics.port: can't listen on {host}:{port}: {why}{hint}") from None
