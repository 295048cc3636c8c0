"""A worker of a build that no record with POISON in it survives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from stream_gru.codecs import Decoded
from stream_gru.codecs.json import Codec
from tests.support.forked import work

_decode = Codec.decode


def decode(self: Codec, keys: Sequence[Any], payloads: Sequence[Any], record_timestamp: Any) -> Decoded:
    if any(b"POISON" in payload for payload in payloads if payload):
        os.abort()
    return _decode(self, keys, payloads, record_timestamp)


def main() -> None:
    """For `tests.support.forked.Worker`."""
    Codec.decode = decode  # type: ignore[method-assign]  # that is what this is for
    work()
