"""Records that could not be read: why, where they came from, and enough of them to find out what went wrong.

Pure: the worker counts them by reason and publishes the bytes. What a record held goes to the dead-letters topic and
nowhere else, never into a log.
"""

from __future__ import annotations

import base64
import hashlib
from codecs import getincrementaldecoder
from enum import StrEnum

import msgspec

from stream_gru.errors import DataError

MAX_KEY_BYTES = 256  # of the dead letter's own record key


class Reason(StrEnum):
    """Why a record is a dead letter. A small fixed set: it is a label of a metric."""

    TOMBSTONE = "tombstone"  # a record without a payload
    PAYLOAD_TOO_LARGE = "payload_too_large"
    KEY_MISSING = "key_missing"  # no series: the record key is absent, or the fields that name the series are empty
    KEY_TOO_LARGE = "key_too_large"
    KEY_NOT_UTF8 = "key_not_utf8"
    INVALID_JSON = "invalid_json"  # malformed, not UTF-8, or nested too deep
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    INVALID_SERIES = "invalid_series"  # a field that names the series is neither a string nor an integer
    INVALID_TIMESTAMP = "invalid_timestamp"  # not of the set format, or outside the years 1 to 9999
    FUTURE_TIMESTAMP = "future_timestamp"
    INVALID_VALUE = "invalid_value"  # neither a number nor null
    VALUE_OUT_OF_RANGE = "value_out_of_range"
    TOO_MANY_SERIES = "too_many_series"
    BATCH_TOO_LARGE = "batch_too_large"  # a whole record batch that unpacks to more than it may
    BATCH_CORRUPT = "batch_corrupt"  # a whole record batch that is not what its producer sent, or can't be unpacked
    CRASHED_WORKER = "crashed_worker"  # three workers in a row ended while they scored it; it was not read again


class Original(msgspec.Struct, frozen=True):
    """A record's key or payload. `length` and `sha256` are those of the whole, `data` may be only its beginning."""

    encoding: str  # of `data`: utf-8 or base64
    data: str
    truncated: bool
    length: int  # bytes
    sha256: str


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record of the dead-letters topic."""

    id: str  # topic-partition-offset of the record that could not be read, or of the first one of a batch
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp: int  # Kafka's own, epoch ms
    key: Original | None
    value: Original | None
    last_offset: int | None = None  # of a batch that could not be read: it stands for all offsets up to this one


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(DeadLetter)


def encode(  # noqa: PLR0917  # the coordinates of a record, in their usual order
    reason: Reason,
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    *,
    detail: str = "",
    last_offset: int | None = None,
    max_bytes: int = 4096,
) -> tuple[bytes | None, bytes]:
    """Key and value of the dead letter for the record at these coordinates.

    `timestamp` is Kafka's own, epoch ms. At most `max_bytes` of the key and of the payload are kept, and the first 256
    bytes of the key become the dead letter's own, so that it is found beside its series. `last_offset` is for a batch
    that could not be read, from `offset` up to it.
    """
    letter = DeadLetter(
        id=f"{topic}-{partition}-{offset}",
        reason=reason.value,
        detail=detail,
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=timestamp,
        key=_capped(key, max_bytes),
        value=_capped(value, max_bytes),
        last_offset=last_offset,
    )
    return None if key is None else key[:MAX_KEY_BYTES], _ENCODER.encode(letter)


def shorten(value: bytes) -> bytes | None:
    """The same dead letter with a quarter of what it keeps of the original; None: it keeps nothing."""
    letter = _DECODER.decode(value)
    if not any(original and original.data for original in (letter.key, letter.value)):
        return None
    return _ENCODER.encode(msgspec.structs.replace(letter, key=_quarter(letter.key), value=_quarter(letter.value)))


def decode(value: bytes) -> DeadLetter:
    """Read a record of the dead-letters topic. Raises `DataError` for bytes that are none."""
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"this is no dead letter of stream_gru: {error}") from None


def _capped(whole: bytes | None, max_bytes: int) -> Original | None:
    if whole is None:
        return None
    kept = whole[:max_bytes]
    truncated = len(kept) < len(whole)
    try:
        # A character that the cap cuts in two is left out; it does not make text binary.
        data, encoding = getincrementaldecoder("utf-8")().decode(kept, final=not truncated), "utf-8"
    except UnicodeDecodeError:
        data, encoding = base64.b64encode(kept).decode("ascii"), "base64"
    return Original(encoding, data, truncated, len(whole), hashlib.sha256(whole).hexdigest())


def _quarter(original: Original | None) -> Original | None:
    if original is None or not original.data:
        return original
    keep = len(original.data) // 4
    if original.encoding == "base64":
        keep -= keep % 4  # whole groups of three bytes
    return msgspec.structs.replace(original, data=original.data[:keep], truncated=True)
