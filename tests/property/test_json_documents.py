"""The JSON codec against Python's own parser, over documents that are nearly right in every way."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_gru.codecs import load
from stream_gru.settings import Input

NOW = 1_700_000_000_000
LIMIT = 1e6

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.sampled_from([LIMIT, -LIMIT, LIMIT + 1e-9, 10**400, 1e308])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["at", "v", "id", "data", "other"])
documents = st.dictionaries(names, anything, max_size=5)
right = st.fixed_dictionaries(
    {
        "at": st.integers(-NOW, NOW),
        "v": st.floats(-LIMIT, LIMIT) | st.integers(-100, 100) | st.none(),
        "id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5) | st.integers(-5, 5),
        "data": st.fixed_dictionaries({"v": st.floats(-LIMIT, LIMIT)}, optional={"x": anything}),
    },
    optional={"other": anything},
)
# One field of a right document replaced now and then, so that most examples get far enough to matter.
mixed = st.tuples(right, documents, st.sampled_from(["none", "some", "all"])).map(
    lambda parts: {"none": parts[0], "some": {**parts[0], **dict(list(parts[1].items())[:1])}, "all": parts[1]}[
        parts[2]
    ]
)
spaced = st.sampled_from(["", " ", "\n", "\t \r\n"])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    text = json.dumps(
        draw(mixed), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 0, 3])), allow_nan=True
    )
    # Lone surrogates that a key may hold can't be encoded; what stands for them is refused by the codec too.
    return (draw(spaced) + text + draw(spaced)).encode("utf-8", "surrogatepass")


def number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def expected(payload: bytes) -> tuple[bytes, int, float, float] | None:
    """What the document says, or None where it is a dead letter."""

    def refuse(literal: str) -> Any:
        raise ValueError(literal)

    try:
        document = json.loads(payload.decode(), parse_constant=refuse)
        json.dumps(document, ensure_ascii=False).encode()  # fails for a surrogate that an escape spells
    except ValueError:
        return None
    at, name = document.get("at"), document.get("id")
    values = [document.get("v", "missing")]
    values.append(document["data"].get("v", "missing") if isinstance(document.get("data"), dict) else "missing")
    good = (
        number(at, -62_135_596_800_000, NOW + 1000)
        and (isinstance(name, str) or (isinstance(name, int) and not isinstance(name, bool)))
        and 0 < len(str(name).encode()) <= 32
        and all(value is None or number(value, -LIMIT, LIMIT) for value in values)
    )
    first, second = (math.nan if value is None else value for value in values)
    return (str(name).encode(), math.floor(at), first, second) if good else None


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(st.lists(texts(), max_size=4))
def test_a_batch_says_what_each_document_says(payloads: list[bytes]) -> None:
    limits = {"max_abs_value": LIMIT, "max_future_s": 1, "max_key_bytes": 32}
    codec = load(Input(series=("id",), timestamp="at", values=("v", "data.v"), **limits), ())
    n = len(payloads)
    decoded = codec.decode([None] * n, payloads, np.full(n, NOW))
    wanted = [expected(payload) for payload in payloads]
    assert set(decoded.bad) == {row for row, want in enumerate(wanted) if want is None}
    for row, want in enumerate(wanted):
        if want is not None:
            assert (decoded.series[row], decoded.timestamp[row]) == want[:2]
            np.testing.assert_array_equal(decoded.value[row], want[2:])
