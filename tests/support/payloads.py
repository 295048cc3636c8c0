"""Payloads for the JSON codec, alone and between others."""

from __future__ import annotations

from typing import Any

import numpy as np

from stream_gru.codecs import Codec, Decoded, load
from stream_gru.settings import Input

GOOD = b'{"timestamp":1700000000000,"value":21.5}'

NOW = 1_700_000_000_000


def codec(**mapping: Any) -> Codec:
    return load(Input(**mapping), ())


def decode(payloads: list[bytes | None], **mapping: Any) -> Decoded:
    return codec(**mapping).decode([b"k"] * len(payloads), payloads, np.full(len(payloads), NOW))


def with_value(text: bytes) -> bytes:
    return b'{"timestamp":1700000000000,"value":%s}' % text


def beside(text: bytes) -> bytes:
    return b'{"timestamp":1700000000000,"value":1,"note":%s}' % text
