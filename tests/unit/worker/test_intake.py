"""What is admitted of a batch whose partitions may be lost while it waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stream_gru.codecs import Decoded
from stream_gru.settings import Input
from stream_gru.worker.intake import Admission, PartitionRows, Polled


async def test_a_partition_that_was_lost_while_its_batch_waited_is_left_out() -> None:
    """Its rows are gone from the arena: a look-up by its handle would fail, or find another partition's."""
    fences: Any = SimpleNamespace(met=lambda _: pytest.fail("nobody was fenced"))
    lost: Any = SimpleNamespace(tp="readings-0", id="group:readings:0", handle=1)
    parts: Any = SimpleNamespace(
        settings=SimpleNamespace(input=Input()),
        engine=SimpleNamespace(arena=None),
        live={"readings-0": "its successor"},
    )
    admission = Admission(parts, None, None, fences)  # type: ignore[arg-type]  # neither is asked
    one = np.zeros(1, np.int64)
    polled = Polled([PartitionRows(lost, 0, 1, 0)], [b"s"], [b"{}"], one, one)
    admitted = await admission.admit(polled, Decoded([b"s"], one, np.zeros((1, 1))))
    assert polled.spans == []
    assert len(admitted.index) == 0
