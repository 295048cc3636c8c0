"""Every format of a timestamp, to the millisecond, and what is no time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_gru.codecs import load
from stream_gru.codecs._timestamps import FIRST, INVALID, LAST, from_ms, to_ms
from stream_gru.records.dead_letters import Reason
from stream_gru.settings import Input

T = 1_700_000_000_000  # 2023-11-14T22:13:20Z
GOOD: dict[str, dict[str, int]] = {
    "s": {
        "1700000000": T,
        "1700000000.0": T,
        "1.7e9": T,
        "1700000000.123": T + 123,
        "1700000000.1239": T + 123,
        "1700000000.999999": T + 999,
        "0": 0,
        "-0.001": -1,
        "-0.0015": -2,
        "-62135596800": FIRST,
        "7258118399.999": 7_258_118_399_999,
        "253402300799": LAST - 999,
    },
    "ms": {
        "1700000000000": T,
        "1.7e12": T,
        "1700000000000.9": T,
        "0": 0,
        "-1": -1,
        "-0.5": -1,
        "-62135596800000": FIRST,
        "253402300799999": LAST,
    },
    "us": {
        "1700000000000000": T,
        "1700000000000999": T,
        "-1": -1,
        "-62135596800000000": FIRST,
        "253402300799999999": LAST,
    },
    "ns": {"1700000000000000000": T, "1700000000000999999": T, "-1": -1, "9223372036854775807": 9_223_372_036_854},
    "iso": {
        '"2023-11-14T22:13:20Z"': T,
        '"2023-11-14T22:13:20+00:00"': T,
        '"2023-11-14T22:13:20"': T,
        '"2023-11-14 22:13:20"': T,
        '"2023-11-14T23:13:20+01:00"': T,
        '"2023-11-14T16:43:20-0530"': T,
        '"20231114T221320Z"': T,
        '"2023-W46-2T22:13:20Z"': T,
        '"2023-11-14T22:13:20.5Z"': T + 500,
        '"2023-11-14T22:13:20,5Z"': T + 500,
        '"2023-11-14T22:13:20.123456Z"': T + 123,
        '"2023-11-14T22:13:20.999999999Z"': T + 999,
        '"2023-11-14"': T - 80_000_000,
        '"1969-12-31T23:59:59.9999Z"': -1,
        '"0001-01-01T00:00:00Z"': FIRST,
        '"9999-12-31T23:59:59.999999Z"': LAST,
    },
}  # fmt: skip
BAD: dict[str, list[str]] = {
    "s": ["null", "true", '"1"', "[]", "1e300", "1e999", "-1e300", "253402300800", "-62135596800.001", "9" * 5000],
    "ms": ["null", "false", '"2023"', "{}", "1e300", "253402300800000", "-62135596800000.5", "-1e999", "9" * 5000],
    "us": ["null", "true", "1.5", "1e15", "253402300800000000", "-62135596800000001", "9" * 19, "9" * 5000],
    "ns": ["null", "true", "1.5", "1e18", "9223372036854775808", "-9223372036854775809", "9" * 5000],
    "iso": [
        "null",
        "1700000000000",
        '""',
        '"now"',
        '"2023-11-14T22:13:20 UTC"',
        '"2023-13-14T22:13:20Z"',
        '"2023-02-29"',
        '"2023-11-14T22:13:60Z"',
        '"0000-01-01T00:00:00Z"',
        '"10000-01-01T00:00:00Z"',
        '"0001-01-01T00:00:00+00:01"',
        '"9999-12-31T23:59:59-00:01"',
        '"２０２３-11-14"',
        '"2023-11-14\\u0000"',
    ],
}  # fmt: skip


def decode(unit: Any, *texts: str) -> Any:
    codec = load(Input(timestamp_format=unit, max_future_s=1e12), ())
    payloads = [b'{"timestamp":%s,"value":1}' % text.encode() for text in texts]
    return codec.decode([b"k"] * len(texts), payloads, np.zeros(len(texts), np.int64))


@pytest.mark.parametrize("unit", GOOD)
def test_good_timestamps(unit: str) -> None:
    decoded = decode(unit, *GOOD[unit])
    assert decoded.bad == {}
    assert dict(zip(GOOD[unit], decoded.timestamp.tolist(), strict=True)) == GOOD[unit]


@pytest.mark.parametrize(("unit", "text"), [(unit, text) for unit, texts in BAD.items() for text in texts])
def test_bad_timestamps(unit: str, text: str) -> None:
    good = next(iter(GOOD[unit]))
    decoded = decode(unit, good, text, good)
    assert decoded.bad == {1: Reason.INVALID_TIMESTAMP}
    assert decoded.timestamp[[0, 2]].tolist() == [GOOD[unit][good]] * 2


@given(st.sampled_from(["s", "ms", "us", "iso"]), st.lists(st.integers(-7_000_000_000_000, 8_500_000_000_000)))
def test_a_written_timestamp_is_read_back(unit: str, times: list[int]) -> None:
    """The years 1748 to 2239."""
    column = np.array(times, np.int64)
    assert to_ms(from_ms(column, unit), unit).tolist() == times


@given(st.integers(0, 8_500_000_000_000_000))
def test_decimal_seconds_are_exact(microseconds: int) -> None:
    text = f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"
    assert to_ms([float(text)], "s").tolist() == [microseconds // 1000]


@given(st.lists(st.floats(allow_nan=False)))
def test_no_number_upsets_its_neighbours(numbers: list[float]) -> None:
    for unit in ("s", "ms"):
        together = to_ms([*numbers, 1.0], unit).tolist()
        assert together[:-1] == [to_ms([x], unit)[0] for x in numbers]
        assert all(t == INVALID or FIRST <= t <= LAST for t in together)


@pytest.mark.slow
@given(
    st.text() | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?", fullmatch=True)
)
def test_no_text_raises(text: str) -> None:
    (found,) = to_ms([text], "iso").tolist()
    assert found == INVALID or FIRST <= found <= LAST
