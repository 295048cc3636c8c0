"""A dead letter says why and from where, and keeps enough of the original, but no more than it may."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_gru.errors import DataError
from stream_gru.records import dead_letters
from stream_gru.records.dead_letters import MAX_KEY_BYTES, Original, Reason


def original(whole: bytes, max_bytes: int = 4096) -> Original:
    _, letter = dead_letters.encode(Reason.INVALID_JSON, "readings", 0, 1, 2, None, whole, max_bytes=max_bytes)
    value = dead_letters.decode(letter).value
    assert value is not None
    return value


def test_the_record() -> None:
    key, value = dead_letters.encode(
        Reason.MISSING_FIELD,
        "readings",
        3,
        41,
        1_700_000_000_000,
        "köln".encode(),
        b"\xff{}",
        detail="no field 'value'",
    )
    assert key == "köln".encode()
    assert json.loads(value) == {
        "id": "readings-3-41",
        "reason": "missing_field",
        "detail": "no field 'value'",
        "topic": "readings",
        "partition": 3,
        "offset": 41,
        "timestamp": 1_700_000_000_000,
        "key": {
            "encoding": "utf-8",
            "data": "köln",
            "truncated": False,
            "length": 5,
            "sha256": hashlib.sha256("köln".encode()).hexdigest(),
        },
        "value": {
            "encoding": "base64",
            "data": base64.b64encode(b"\xff{}").decode(),
            "truncated": False,
            "length": 3,
            "sha256": hashlib.sha256(b"\xff{}").hexdigest(),
        },
    }


def test_what_was_absent_is_null() -> None:
    key, value = dead_letters.encode(Reason.TOMBSTONE, "readings", 0, 0, -1, None, None)
    letter = dead_letters.decode(value)
    assert (key, letter.key, letter.value, letter.timestamp) == (None, None, None, -1)


def test_the_key_is_capped_and_an_empty_one_stays() -> None:
    whole = bytes(range(256)) * 40
    key, value = dead_letters.encode(Reason.KEY_TOO_LARGE, "readings", 0, 0, 0, whole, b"{}")
    assert key == whole[:MAX_KEY_BYTES]
    kept = dead_letters.decode(value).key
    assert kept is not None
    assert (base64.b64decode(kept.data), kept.truncated, kept.length) == (whole[:4096], True, 10_240)
    assert dead_letters.encode(Reason.KEY_MISSING, "readings", 0, 0, 0, b"", b"{}")[0] == b""


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_character_cut_in_two_leaves_text_text(cut: int) -> None:
    kept = original("é€😀x".encode(), cut)
    assert (kept.encoding, kept.truncated) == ("utf-8", cut < 10)
    assert kept.data == {1: "", 2: "é", 3: "é", 4: "é", 5: "é€", 6: "é€", 7: "é€", 8: "é€"}[cut]


def test_text_that_itself_ends_within_a_character_is_binary() -> None:
    assert original("é€".encode()[:-1]).encoding == "base64"


@given(st.binary(max_size=200) | st.text(max_size=60).map(str.encode), st.integers(0, 120))
def test_what_is_kept_is_the_beginning(whole: bytes, max_bytes: int) -> None:
    kept = original(whole, max_bytes)
    data = kept.data.encode() if kept.encoding == "utf-8" else base64.b64decode(kept.data)
    assert whole.startswith(data)
    assert min(len(whole), max_bytes) - 3 <= len(data) <= max_bytes
    assert (kept.truncated, kept.length) == (len(whole) > max_bytes, len(whole))
    assert kept.sha256 == hashlib.sha256(whole).hexdigest()
    if kept.encoding == "base64":
        with pytest.raises(UnicodeDecodeError):
            whole.decode()


def test_the_largest_one_fits_into_a_record_of_a_megabyte() -> None:
    worst = b"\x01" * 10_000_000  # six bytes each as JSON
    _, value = dead_letters.encode(Reason.PAYLOAD_TOO_LARGE, "t" * 249, 1, 2**63, 0, worst, worst, max_bytes=65_536)
    assert len(value) < 1_000_000


@pytest.mark.parametrize("whole", [b"\xff" * 5000, "é€😀".encode() * 500])
def test_a_dead_letter_gets_shorter_until_it_keeps_nothing_of_the_original(whole: bytes) -> None:
    _, value = dead_letters.encode(Reason.INVALID_JSON, "readings", 0, 1, 2, whole, whole, detail="why")
    first = dead_letters.decode(value)
    lengths = [len(value)]
    while (shorter := dead_letters.shorten(value)) is not None:
        value = shorter
        lengths.append(len(value))
        letter = dead_letters.decode(value)
        assert letter.value is not None
        assert (letter.id, letter.detail, letter.key) == (first.id, "why", letter.value)
        assert (letter.value.length, letter.value.truncated) == (len(whole), True)
        assert letter.value.sha256 == hashlib.sha256(whole).hexdigest()
        text = letter.value.encoding == "utf-8"
        assert whole.startswith(letter.value.data.encode() if text else base64.b64decode(letter.value.data))
    assert first.value is not None
    assert letter.value == Original(first.value.encoding, "", True, len(whole), first.value.sha256)
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) < 10


def test_what_keeps_nothing_can_not_be_shorter() -> None:
    _, value = dead_letters.encode(Reason.TOMBSTONE, "readings", 0, 0, -1, None, None)
    assert dead_letters.shorten(value) is None


def test_a_batch_is_one_dead_letter_for_all_its_offsets() -> None:
    _, value = dead_letters.encode(
        Reason.BATCH_TOO_LARGE, "readings", 3, 41, 7, None, None, detail="offsets 41 to 45", last_offset=45
    )
    letter = dead_letters.decode(value)
    assert (letter.id, letter.offset, letter.last_offset) == ("readings-3-41", 41, 45)


def test_reasons_are_labels() -> None:
    assert all(reason.value == reason.name.lower() == str(reason) for reason in Reason)
    assert len(Reason) < 20


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"id":1}'])
def test_what_is_no_dead_letter(payload: bytes) -> None:
    with pytest.raises(DataError, match="no dead letter"):
        dead_letters.decode(payload)
