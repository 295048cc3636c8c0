"""Write TOML; Python reads it but has no writer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def lines(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`tree` of plain values as lines of TOML; what is unset becomes a comment, since TOML has no null."""
    for name, value in tree.items():
        if not isinstance(value, Mapping):
            # JSON's numbers, strings and lists are TOML's too, as long as no character is escaped as two surrogates.
            yield f"# {name} is not set" if value is None else f"{name} = {json.dumps(value, ensure_ascii=False)}"
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield f"\n[{prefix}{name}]"
            yield from lines(value, f"{prefix}{name}.")
