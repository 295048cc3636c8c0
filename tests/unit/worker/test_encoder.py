"""Which records of a scored batch are answered, and where the answers go."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition

from stream_gru.codecs import Decoded
from stream_gru.columns import Forecasts, Level, Readings
from stream_gru.metrics import Metrics
from stream_gru.records.dead_letters import Reason
from stream_gru.settings import Settings
from stream_gru.worker.encoder import BatchOutputs, Encoder
from stream_gru.worker.intake import Admitted, PartitionRows, Polled


def partition(number: int, mute_below: int) -> Any:
    state = SimpleNamespace(muted=lambda offsets: offsets < mute_below)
    return SimpleNamespace(id=f"group:readings:{number}", tp=TopicPartition("readings", number), state=state)


class Codec:
    """An output is its id."""

    def encode(self, series: Any, timestamp: Any, ids: list[str], model: str, forecasts: Forecasts) -> list[bytes]:
        assert len(series) == len(timestamp) == len(ids) == len(forecasts)
        return [id_.encode() for id_ in ids]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def outputs(metrics: Metrics) -> BatchOutputs:
    """Of offsets 10 to 15 of partition 0, those below 12 muted, and 3 to 4 of partition 1."""
    rows = 8
    polled = Polled(
        [PartitionRows(partition(0, 12), 0, 6, 0), PartitionRows(partition(1, 0), 6, 8, 0)],
        keys=[b"s%d" % row for row in range(rows)],
        payloads=[b"{}"] * rows,
        timestamp=np.arange(rows) + 1000,
        offset=np.array([10, 11, 12, 13, 14, 15, 3, 4]),
    )
    decoded = Decoded([b"s%d" % row for row in range(rows)], polled.timestamp, np.zeros((rows, 1)))
    decoded.refuse(0, Reason.INVALID_JSON, "muted")
    decoded.refuse(3, Reason.INVALID_JSON, "no object")
    index = np.array([1, 2, 4, 5, 6, 7])
    level = np.full(len(index), Level.NORMAL, np.int8)
    level[2] = Level.COVERED  # offset 14
    columns: dict[str, Any] = {field.name: np.zeros((len(index), 1)) for field in fields(Forecasts)}
    columns |= {
        "level": level,
        "is_anomaly": np.array([True, False, False, True, False, False]),  # offsets 11, which is muted, and 15
        "closes": np.array([False, False, False, False, False, True]),
        "alert": np.zeros(len(index), bool),
    }
    forecasts = Forecasts(**columns)
    parts: Any = SimpleNamespace(
        settings=Settings(),
        metrics=metrics,
        codec=Codec(),
        engine=SimpleNamespace(bundle=SimpleNamespace(name="light")),
    )
    admitted = Admitted(index, Readings(index, polled.offset[index], polled.timestamp[index], decoded.value[index]))
    return Encoder(parts).encode(polled, decoded, admitted, forecasts)


def test_what_is_muted_or_covered_is_not_said_again(outputs: BatchOutputs) -> None:
    said = [(m.topic, m.partition, m.values) for m in outputs.messages if m.topic != "dead-letters"]
    assert said == [
        ("forecasts", 0, [b"readings-0-12", b"readings-0-15"]),
        ("anomalies", 0, [b"readings-0-15"]),
        ("forecasts", 1, [b"readings-1-3", b"readings-1-4"]),
        ("anomalies", 1, [b"readings-1-4"]),
    ]
    assert outputs.messages[0].keys == [b"s2", b"s5"]
    assert outputs.born.tolist() == [1002, 1005, 1006, 1007]


def test_a_bad_record_is_one_dead_letter_unless_it_is_muted(outputs: BatchOutputs, metrics: Metrics) -> None:
    [dead] = [m for m in outputs.messages if m.topic == "dead-letters"]
    assert (dead.partition, dead.keys, len(dead.values)) == (0, [b"s3"], 1)
    assert b'"offset":13' in dead.values[0]
    counted = metrics.registry.get_sample_value("stream_gru_dead_letters_total", {"reason": str(Reason.INVALID_JSON)})
    assert counted == 1


def test_what_a_batch_says_is_counted_also_where_it_is_muted(outputs: BatchOutputs, metrics: Metrics) -> None:
    assert metrics.registry.get_sample_value("stream_gru_model_datapoints_accepted_total") == 5, (
        "but not what is covered"
    )
    assert metrics.registry.get_sample_value("stream_gru_anomalies_total") == 2
