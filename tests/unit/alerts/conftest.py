"""An alerter over a Kafka in memory."""

from __future__ import annotations

import pytest

from stream_gru.alerts import alerter as module
from tests.support.played_faust import Fake


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Its Kafka, for which nobody waits."""
    monkeypatch.setattr(module, "_BACKOFF_S", (0.0,))
    return Fake()
