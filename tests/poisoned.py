"""``python -m tests.poisoned worker`` is the command line, of a build that no record with POISON in it survives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from stream_gru.cli import main
from stream_gru.codecs import Decoded
from stream_gru.codecs.json import Codec

_decode = Codec.decode


def decode(self: Codec, keys: Sequence[Any], payloads: Sequence[Any], record_timestamp: Any) -> Decoded:
    if any(b"POISON" in payload for payload in payloads if payload):
        os.abort()
    return _decode(self, keys, payloads, record_timestamp)


if __name__ == "__main__":
    Codec.decode = decode  # type: ignore[method-assign]  # that is what this is for
    main()
