"""Ten thousand payloads that mean harm, among good ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_gru.codecs import load
from stream_gru.records import dead_letters
from stream_gru.settings import Input

NOW = 1_700_000_000_000
BATCH = 50

_STAMP = b'{"timestamp": %d, "value": ' % NOW


def _nested(opening: bytes, depth: int) -> bytes:
    return _STAMP + opening * depth


# None of these is a reading, whatever is drawn.
hostile = st.one_of(
    st.none(),  # a tombstone
    st.binary(max_size=40).filter(lambda raw: not raw.strip().startswith(b"{")),
    st.integers(0, 200_000).map(lambda depth: b"[" * depth),
    st.builds(_nested, st.sampled_from([b"[", b'{"a":', b"[{"]), st.integers(1, 20_000)),
    st.sampled_from(
        [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e31", b"nan", b"0x10", b"1_000", b"+1"]
    ).map(lambda number: _STAMP + number + b"}"),
    st.integers(400, 5000).map(lambda digits: _STAMP + b"9" * digits + b"}"),
    st.integers(400, 5000).map(lambda digits: b'{"value": 1, "timestamp": ' + b"9" * digits + b"}"),
    st.sampled_from([b'"1"', b"true", b"[1]", b'{"a": 1}', b"1}{", b'1, "value": ', b"1}, {"]).map(
        lambda value: _STAMP + value + b"}"
    ),
    st.binary(min_size=1, max_size=8).map(lambda raw: _STAMP + b'1, "x": "\xff' + raw.replace(b'"', b"") + b'"}'),
    st.integers(0, 30).map(lambda cut: (_STAMP + b"1}")[: cut + 1]).filter(lambda raw: not raw.endswith(b"}")),
    st.just(_STAMP + b'1, "x": "' + b"x" * 70_000 + b'"}'),
)


@pytest.mark.slow
@pytest.mark.parametrize("batches", [pytest.param(10_000 // BATCH, id="10,000")])
def test_row_20_each_hostile_payload_is_one_dead_letter(batches: int) -> None:
    """No crash, one dead letter for each of them, and what stands between them is read as if they were not there."""
    codec = load(Input(), ())
    seen = 0

    @settings(max_examples=batches, deadline=None, database=None)
    @given(st.lists(hostile, min_size=BATCH, max_size=BATCH))
    def takes(bad: list[bytes | None]) -> None:
        nonlocal seen
        payloads: list[bytes | None] = []
        for n, payload in enumerate(bad):
            payloads += [payload, json.dumps({"timestamp": NOW + n, "value": n + 0.5}).encode()]
        decoded = codec.decode([b"a", b"b"] * BATCH, payloads, np.full(2 * BATCH, NOW))
        assert sorted(decoded.bad) == list(range(0, 2 * BATCH, 2))
        assert decoded.series[1::2] == [b"b"] * BATCH
        np.testing.assert_array_equal(decoded.timestamp[1::2], NOW + np.arange(BATCH))
        np.testing.assert_array_equal(decoded.value[1::2, 0], np.arange(BATCH) + 0.5)
        for row, reason in decoded.bad.items():
            _, letter = dead_letters.encode(
                reason, "t", 0, row, NOW, b"a", payloads[row], detail=decoded.detail.get(row, "")
            )
            assert len(letter) < 1 << 14
            assert dead_letters.decode(letter).id == f"t-0-{row}"
        seen += BATCH

    takes()
    assert seen >= batches * BATCH
