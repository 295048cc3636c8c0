"""The endpoints, and the histogram that takes arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client import generate_latest

from stream_gru.errors import SettingsError
from stream_gru.metrics import Health, Metrics, StatusServer, require_address
from tests.support.pages import get


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def server(health: Health) -> Iterator[StatusServer]:
    server = StatusServer("127.0.0.1", 0, Metrics(), health)
    yield server
    server.close()


def test_arrays_are_counted_in_their_buckets() -> None:
    metrics = Metrics()
    metrics.latency.observe(np.array([0.001, 0.005, 0.02, 700.0]))
    metrics.latency.observe(np.array([0.0075]))
    lines = generate_latest(metrics.registry).decode().splitlines()
    assert 'stream_gru_latency_seconds_bucket{le="0.005"} 2.0' in lines  # bounds belong to their bucket
    assert 'stream_gru_latency_seconds_bucket{le="0.01"} 3.0' in lines
    assert 'stream_gru_latency_seconds_bucket{le="600.0"} 4.0' in lines
    assert 'stream_gru_latency_seconds_bucket{le="+Inf"} 5.0' in lines
    assert "stream_gru_latency_seconds_count 5.0" in lines


def test_ready_needs_every_part(server: StatusServer, health: Health) -> None:
    assert get(server.port, "/ready")[0] == 503  # nothing has reported yet
    health.report("store")
    health.report("assignment", "being restored")
    status, body = get(server.port, "/ready")
    assert status == 503
    assert json.loads(body)["parts"]["assignment"] == "being restored"
    health.report("assignment")
    assert get(server.port, "/ready")[0] == 200
    health.stalled = "no turn"
    assert get(server.port, "/ready")[0] == get(server.port, "/health")[0] == 503


def test_waiting_is_unready_but_healthy(server: StatusServer, health: Health) -> None:
    health.report("store", "does not answer")
    assert get(server.port, "/ready")[0] == 503
    assert get(server.port, "/health")[0] == 200
    page = get(server.port, "/metrics")[1]
    assert 'stream_gru_server_up{server="store"} 0.0' in page
    assert 'stream_gru_server_up{server="kafka"} 1.0' in page


def test_metrics_page(server: StatusServer) -> None:
    status, page = get(server.port, "/metrics")
    assert status == 200
    assert "stream_gru_ready 0.0" in page
    assert 'stream_gru_dead_letters_total{reason="invalid_json"} 0.0' in page
    assert get(server.port, "/nothing")[0] == 404


def test_an_address_where_somebody_listens_is_a_possible_one(server: StatusServer) -> None:
    require_address("127.0.0.1", server.port)
    with pytest.raises(SettingsError, match=r"can't listen on 192\.0\.2\.1:9108"):
        require_address("192.0.2.1", 9108)
