"""What the JSON codec makes of each kind of payload, and that a payload can't reach into its neighbours."""

from __future__ import annotations

import secrets

import numpy as np
import pytest

from stream_gru.codecs import Decoded, load
from stream_gru.codecs._objects import MAX_DEPTH, Reader, Wanted
from stream_gru.codecs._outputs import shorten
from stream_gru.columns import Forecasts
from stream_gru.records.dead_letters import Reason
from stream_gru.settings import Input
from tests.support.payloads import GOOD, NOW, beside, codec, decode, with_value

VALUES: dict[bytes, float] = {
    b"21.5": 21.5,
    b"-0": 0.0,
    b"1e30": 1e30,
    b"-1E+30": -1e30,
    b"1e-400": 0.0,
    b"123456789012345678901234567890": 123456789012345678901234567890.0,
    b"0.1000000000000000055511151231257827021181583404541015625": 0.1,
    b"0." + b"0" * 400 + b"1e400": 0.1,
    b"null": float("nan"),
}
BAD_VALUES: dict[bytes, Reason] = {
    b"true": Reason.INVALID_VALUE,
    b'"21.5"': Reason.INVALID_VALUE,
    b'"NaN"': Reason.INVALID_VALUE,
    b"[1]": Reason.INVALID_VALUE,
    b"{}": Reason.INVALID_VALUE,
    b"NaN": Reason.INVALID_JSON,
    b"Infinity": Reason.INVALID_JSON,
    b"-Infinity": Reason.INVALID_JSON,
    b"nan": Reason.INVALID_JSON,
    b"01": Reason.INVALID_JSON,
    b"+1": Reason.INVALID_JSON,
    b".5": Reason.INVALID_JSON,
    b"1.": Reason.INVALID_JSON,
    b"1,5": Reason.INVALID_JSON,
    b"0x1p3": Reason.INVALID_JSON,
    b"": Reason.INVALID_JSON,
    b"1e999": Reason.VALUE_OUT_OF_RANGE,
    b"-1e999": Reason.VALUE_OUT_OF_RANGE,
    b"1.0000001e30": Reason.VALUE_OUT_OF_RANGE,
    b"9" * 5000: Reason.VALUE_OUT_OF_RANGE,
    b"-" + b"9" * 5000: Reason.VALUE_OUT_OF_RANGE,
}
BAD_PAYLOADS: dict[bytes | None, Reason] = {
    None: Reason.TOMBSTONE,
    b"": Reason.INVALID_JSON,
    b" \n": Reason.INVALID_JSON,
    b"\x00": Reason.INVALID_JSON,
    b"not json": Reason.INVALID_JSON,
    b"null": Reason.NOT_AN_OBJECT,
    b"5": Reason.NOT_AN_OBJECT,
    b'"text"': Reason.NOT_AN_OBJECT,
    b"[]": Reason.NOT_AN_OBJECT,
    b"[" + GOOD + b"]": Reason.NOT_AN_OBJECT,
    b"{}": Reason.MISSING_FIELD,
    b'{"value":1}': Reason.MISSING_FIELD,
    b'{"timestamp":1700000000000}': Reason.MISSING_FIELD,
    b'{"Timestamp":1700000000000,"value":1}': Reason.MISSING_FIELD,
    GOOD[:-1]: Reason.INVALID_JSON,
    GOOD + b"}": Reason.INVALID_JSON,
    GOOD + GOOD: Reason.INVALID_JSON,
    GOOD + b"," + GOOD: Reason.INVALID_JSON,
    GOOD + b"\n" + GOOD: Reason.INVALID_JSON,
    GOOD + b"\x00": Reason.INVALID_JSON,
    GOOD[:-1] + b",}": Reason.INVALID_JSON,
    b"\xef\xbb\xbf" + GOOD: Reason.INVALID_JSON,
    GOOD.decode().encode("utf-16"): Reason.INVALID_JSON,
    b"// note\n" + GOOD: Reason.INVALID_JSON,
    GOOD.replace(b'"', b"'"): Reason.INVALID_JSON,
    GOOD.replace(b",", b"\xc2\xa0,"): Reason.INVALID_JSON,
    GOOD.replace(b",", b"\x0b,"): Reason.INVALID_JSON,
    beside(b'"\xff"'): Reason.INVALID_JSON,
    beside(b'"\xed\xa0\x80"'): Reason.INVALID_JSON,
    beside(b'"\\ud800"'): Reason.INVALID_JSON,
    beside(b'"\\x"'): Reason.INVALID_JSON,
    beside(b'"line\nfeed"'): Reason.INVALID_JSON,
    beside(b'1,"\xff":1'): Reason.INVALID_JSON,
    beside(b"[" * 100_000): Reason.PAYLOAD_TOO_LARGE,
    beside(b"[" * 60_000): Reason.INVALID_JSON,
    beside(b'{"a":' * 10_000 + b"1" + b"}" * 10_000): Reason.INVALID_JSON,
    # A field that is there twice must be right both times, though the last one counts.
    b'{"timestamp":1700000000000,"value":"x","value":2}': Reason.INVALID_JSON,
    b'{"timestamp":1700000000000,"value":2,"value":"x"}': Reason.INVALID_VALUE,
}
GOOD_PAYLOADS: list[bytes] = [
    b' \t\r\n{ "value" :\n1 ,\r"timestamp"\t: 1700000000000 } \n',
    b'{"timestamp":1700000000000,"value":7,"value":1}',
    b'{"timestamp":1700000000000,"\\u0076alue":1}',
    beside(b'"\\ud83d\\ude00 \xf0\x9f\x98\x80 \\u0000"'),
    beside(b'"\xef\xbb\xbf"'),
    beside(b"1e999"),
    beside(b"9" * 5000),
    beside(b'"' + b"[{" * 20_000 + b'"'),
    beside(b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)),
    beside(b"[" + b",".join([b"{}"] * 5000) + b"]"),
    beside(b'"\\"' + b"[" * 500 + b'\\\\"'),
]


def in_every_place(payload: bytes | None) -> list[Decoded]:
    """Alone, first, in the middle and last."""
    places = [[payload], [payload, GOOD, GOOD], [GOOD, payload, GOOD], [GOOD, GOOD, payload]]
    return [decode(place) for place in places]


@pytest.mark.parametrize("text", VALUES, ids=lambda text: text[:20].decode())
def test_values(text: bytes) -> None:
    for place, decoded in zip((0, 0, 1, 2), in_every_place(with_value(text)), strict=True):
        assert decoded.bad == {}
        np.testing.assert_equal(decoded.value[place, 0], VALUES[text])
        assert decoded.timestamp.tolist() == [NOW] * len(decoded.series)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [*BAD_PAYLOADS.items(), *((with_value(text), reason) for text, reason in BAD_VALUES.items())],
    ids=lambda x: str(x)[:40],
)
def test_bad_payloads_are_one_dead_letter_each(payload: bytes | None, reason: Reason) -> None:
    for place, decoded in zip((0, 0, 1, 2), in_every_place(payload), strict=True):
        assert decoded.bad == {place: reason}
        others = [row for row in range(len(decoded.series)) if row != place]
        assert decoded.value[others, 0].tolist() == [21.5] * len(others)
        assert [decoded.series[row] for row in others] == [b"k"] * len(others)


@pytest.mark.parametrize("payload", GOOD_PAYLOADS, ids=lambda x: str(x)[:40])
def test_unusual_but_good_payloads(payload: bytes) -> None:
    for place, decoded in zip((0, 0, 1, 2), in_every_place(payload), strict=True):
        assert decoded.bad == {}
        assert decoded.value[place, 0] == 1


def test_the_deepest_nesting_is_the_same_alone_and_in_a_batch() -> None:
    deepest, deeper = (beside(b"[" * n + b"]" * n) for n in (MAX_DEPTH - 1, MAX_DEPTH))
    assert decode([deepest]).bad == decode([deepest] * 3).bad == {}
    assert decode([deeper]).bad == {0: Reason.INVALID_JSON}
    assert set(decode([deeper, GOOD, deeper]).bad) == {0, 2}
    assert decode([deeper]).detail == {0: f"nested deeper than {MAX_DEPTH}"}


def test_depth_is_measured_in_linear_time() -> None:
    """Each of a million quotes could begin a string that never ends; looking for each one's end would take hours."""
    payload = b'{"note":' + b"[" * (MAX_DEPTH + 1) + b'"\\' * 1_000_000
    assert decode([payload, GOOD], max_payload_bytes=4_000_000).bad == {0: Reason.INVALID_JSON}


SPILLS: list[list[bytes]] = [
    # The second half of a forged object is completed by the next payload.
    [b'{"timestamp":1700000000000,"value":1},{"timestamp":1700000000000', b'"value":99}'],
    # A string swallows what stands between, and one object too many makes up the count.
    [b'{"timestamp":1700000000000,"value":1},5,{"timestamp":1700000000000,"value":666,"note":"', b'"}'],
    [b'{"timestamp":1700000000000,"value":1,"note":"', b'","value":99}'],
    [b'{"timestamp":1700000000000,"value":1,"note":[', b'],"value":99}'],
    [GOOD + b"],[", GOOD],
    [GOOD + b"," + GOOD, b"", GOOD],
    [b"", GOOD + b"," + GOOD],
    [GOOD + b"]", b"[" + GOOD],
    [GOOD + b",", GOOD],
    [GOOD, b"," + GOOD],
    [b"\xc3", b"\xa9"],
]


@pytest.mark.parametrize("payloads", SPILLS)
def test_no_payload_spills_into_the_next(payloads: list[bytes]) -> None:
    decoded = decode([GOOD, *payloads, GOOD])
    for row, payload in enumerate(payloads, start=1):
        assert (row in decoded.bad) == (payload != GOOD)
        assert decoded.value[row, 0] == 21.5 or row in decoded.bad
    assert decoded.value[[0, -1], 0].tolist() == [21.5, 21.5]


@pytest.mark.parametrize("places", [1, 2, 3])
def test_a_payload_that_knew_the_number_between_still_adds_no_reading(
    monkeypatch: pytest.MonkeyPatch, places: int
) -> None:
    monkeypatch.setattr(secrets, "randbits", lambda _bits: 42)
    forged = b",42,".join([GOOD] * (places + 1))
    assert set(decode([GOOD, forged, GOOD]).bad) == {1}
    assert set(decode([b"42", GOOD]).bad) == {0}


def test_the_number_between_is_another_one_in_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def spy(bits: int) -> int:
        drawn.append((bits, number := draw(bits)))
        return number

    draw = secrets.randbits
    monkeypatch.setattr(secrets, "randbits", spy)
    reader = codec()
    for _ in range(3):
        reader.decode([b"k"] * 2, [GOOD] * 2, np.full(2, NOW))
    assert [bits for bits, _ in drawn] == [62] * 3
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("note", [b"1", '"é"'.encode(), b"[" * 60 + b"]" * 60])
def test_a_good_batch_is_read_at_once(monkeypatch: pytest.MonkeyPatch, note: bytes) -> None:
    reader = Reader([Wanted(("value",), float | None, Reason.INVALID_VALUE)])
    monkeypatch.setattr(reader, "_one", None)
    objects, refused = reader.read([beside(note)] * 3)
    assert (len(objects), refused) == (3, {})
    with pytest.raises(AttributeError):
        reader.read([beside(note), b"x"])


def test_a_big_batch_is_read_at_once_and_one_by_one_alike() -> None:
    n = 8000
    payloads: list[bytes | None] = [with_value(b"%d" % i) for i in range(n)]
    assert decode(payloads).value[:, 0].tolist() == list(range(n))
    payloads[4321] = b"x"
    decoded = decode(payloads)
    assert decoded.bad == {4321: Reason.INVALID_JSON}
    assert np.delete(decoded.value[:, 0], 4321).tolist() == [i for i in range(n) if i != 4321]


def test_the_detail_says_what_is_wrong_and_nothing_of_the_payload() -> None:
    secret = b'"hunter2"'
    assert decode([with_value(secret)]).detail == {0: "field 'value': Expected `float | null`, got `str`"}
    assert decode([with_value(b"1e999")]).detail == {0: "field 'value': Number out of range"}
    assert decode([with_value(b"2e30")]).detail == {0: "a value beyond 1e+30"}
    assert decode([beside(b'"\xff"')]).detail == {0: "not UTF-8 at byte 45"}
    assert decode([b'{"timestamp":"hunter2","value":1}']).detail == {
        0: "field 'timestamp': Expected `float`, got `str`"
    }


def test_records_whose_key_or_payload_is_refused_do_not_hide_what_else_is_wrong() -> None:
    keys = [b"a", None, b"c", b"d"]
    decoded = codec().decode(keys, [None, b"x", b"x", GOOD], np.full(4, NOW))
    assert decoded.bad == {0: Reason.TOMBSTONE, 1: Reason.KEY_MISSING, 2: Reason.INVALID_JSON}
    assert decoded.series == [b"", b"", b"", b"d"]


def test_of_several_reasons_the_first_is_given() -> None:
    late_and_large = b'{"timestamp":1800000000000,"value":2e30}'
    decoded = codec().decode([None, None, b"k"], [None, late_and_large, late_and_large], np.full(3, NOW))
    assert decoded.bad == {0: Reason.TOMBSTONE, 1: Reason.KEY_MISSING, 2: Reason.FUTURE_TIMESTAMP}
    assert decoded.detail[2] == "more than 86400 s past the record's own"


def test_shortened_numbers_are_short_and_close() -> None:
    x = np.array([[0.1 + 0.2, -21.482312345678, 1e30 / 3], [1.1754944e-38, np.nan, 0.0]])
    short = shorten(x)
    np.testing.assert_allclose(short, x, rtol=1e-8)
    assert [repr(v) for v in short[0, :2].tolist()] == ["0.3", "-21.4823123"]


@pytest.mark.parametrize("x", [1e300, 1.7976931348623157e308, 1e-300, 5e-324])
def test_numbers_at_the_ends_of_what_there_is_are_written_too(x: float) -> None:
    np.testing.assert_allclose(shorten(np.array([x, -x])), [x, -x], rtol=1e-8, atol=1e-299)


def test_columns_that_do_not_fit_each_other_are_not_cut_to_the_shortest() -> None:
    columns = np.zeros((2, 1))
    flags, level = np.zeros(2, bool), np.zeros(2, np.int8)
    forecasts = Forecasts(
        columns, columns, columns, columns, columns, np.zeros((2, 1, 3, 1)), columns[:, 0], columns[:, 0], flags,
        columns[:, 0], flags, flags, columns, columns, level, columns[:, :, None], np.zeros(2, np.int64),
    )  # fmt: skip
    good = load(Input(), (1,))
    assert len(good.encode([b"a", b"b"], np.zeros(2, np.int64), ["x", "y"], "m", forecasts)) == 2
    with pytest.raises(ValueError, match="2 forecasts of 1 horizons for 1 readings of 1"):
        good.encode([b"a"], np.zeros(1, np.int64), ["x"], "m", forecasts)
    with pytest.raises(ValueError, match="2 forecasts of 1 horizons for 2 readings of 0"):
        codec().encode([b"a", b"b"], np.zeros(2, np.int64), ["x", "y"], "m", forecasts)
