"""JSON payloads -> structs of the wanted fields, many at once, none able to touch another.

A batch is decoded as ONE array. Joined with commas alone, that would let a payload spill into its neighbour:
``{"s":"a","v":1},{"s":"victim"`` before ``"v":99}`` would read as two good objects, one of them forged. So a number
that nobody can guess stands between any two payloads. Only when the array holds it in every second place, and one
object in each place between, was every payload exactly one object by itself; else each is read alone.

Where an object has a field twice the last one counts, but each must be right. The whole payload must be UTF-8 without a
byte order mark, fields that nobody asked for included.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_gru.codecs._fields import Path, PayloadLayout
from stream_gru.records.dead_letters import Reason

MAX_DEPTH = 100  # of nested brackets: far below where the parser's own limit would depend on who called it

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NOT_A_BRACKET = re.compile(rb'"(?:[^"\\]+|\\.)*"?|[^][{}"]+', re.DOTALL)  # a string is closed or runs to the end


class Wanted(NamedTuple):
    """A field to read: where it is, its type, and what a payload with something else there is refused for."""

    path: Path
    kind: Any
    reason: Reason
    optional: bool = False  # may be absent; those come last


class Reader:
    """Reads the wanted fields. `layout` says which attribute holds which."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        """Raises `SettingsError` when a field can't be read beside another."""
        optional = [field.path for field in wanted if field.optional]
        self.layout = PayloadLayout([(field.path, field.kind) for field in wanted], optional)
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.layout.struct)
        self._many: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[self.layout.struct | int])  # type: ignore[name-defined]  # made at run time
        self._wanted = [(field, msgspec.json.Decoder(field.kind)) for field in wanted]

    def read(self, payloads: Sequence[bytes]) -> tuple[list[Any], dict[int, tuple[Reason, str]]]:
        """The objects of the payloads that could be read, in order, and for each other one by its row why not."""
        objects = self._read_joined(payloads)
        if objects is not None:
            return objects, {}
        objects, refused = [], {}
        for row, payload in enumerate(payloads):
            try:
                _check_utf8(payload)
                _check_depth(payload)
                objects.append(self._one.decode(payload))
            except _UNREADABLE as error:
                refused[row] = self._explain(payload, error)
        return objects, refused

    def _read_joined(self, payloads: Sequence[bytes]) -> list[Any] | None:
        """All of them at once; None when that is not surely the same as one by one."""
        n, sentinel = len(payloads), secrets.randbits(62)
        if n < 2:
            return None
        joined = b"[" + (b",%d," % sentinel).join(payloads) + b"]"
        try:
            _check_utf8(joined)
            # An object has a bracket at least, so that with few more in all none of them can be deep.
            if joined.count(b"{") + joined.count(b"[") >= n + MAX_DEPTH:
                for payload in payloads:
                    _check_depth(payload)
            elements = self._many.decode(joined)
        except _UNREADABLE:
            return None
        objects = elements[::2]
        apart = len(elements) == 2 * n - 1 and elements[1::2].count(sentinel) == n - 1
        return objects if apart and set(map(type, objects)) == {self.layout.struct} else None

    def _explain(self, payload: bytes, error: Exception) -> tuple[Reason, str]:
        """Which rule a payload breaks that could not be read; in words that say nothing of what it holds."""
        if not isinstance(error, msgspec.ValidationError):
            return Reason.INVALID_JSON, _say(error)
        try:
            fields = _OBJECT.decode(payload)
        except msgspec.ValidationError:
            return Reason.NOT_AN_OBJECT, _say(error)
        except _UNREADABLE as malformed:
            return Reason.INVALID_JSON, _say(malformed)
        for field, decoder in self._wanted:
            name = ".".join(field.path)
            raw = _find(fields, field.path)
            if raw is None and field.optional and _is_absent(fields, field.path):
                continue
            if raw is None:
                return Reason.MISSING_FIELD, f"there is no field {name!r}"
            try:
                decoder.decode(raw)
            except _UNREADABLE as wrong:
                is_number = field.reason is Reason.INVALID_VALUE and bytes(raw)[0] in b"-0123456789"
                return Reason.VALUE_OUT_OF_RANGE if is_number else field.reason, f"field {name!r}: {_say(wrong)}"
        return Reason.INVALID_JSON, f"a field is there twice: {_say(error)}"


def _check_utf8(text: bytes) -> None:
    if not text.isascii():
        text.decode()


def _check_depth(payload: bytes) -> None:
    if payload.count(b"{") + payload.count(b"[") <= MAX_DEPTH:
        return
    brackets = np.frombuffer(_NOT_A_BRACKET.sub(b"", payload), np.uint8)
    if np.cumsum(np.where(brackets & 2, 1, -1)).max(initial=0) > MAX_DEPTH:  # this bit is set in [ and { alone
        raise RecursionError(f"nested deeper than {MAX_DEPTH}")


def _find(fields: dict[str, msgspec.Raw], path: Path) -> msgspec.Raw | None:
    *parents, last = path
    for name in parents:
        try:
            fields = _OBJECT.decode(fields[name])
        except (KeyError, *_UNREADABLE):
            return None
    return fields.get(last)


def _is_absent(fields: dict[str, msgspec.Raw], path: Path) -> bool:
    """Whether an object on the way to `path`, or the field itself, is not there or null."""
    for name in path[:-1]:
        if name not in fields or bytes(fields[name]) == b"null":
            return True
        try:
            fields = _OBJECT.decode(fields[name])
        except _UNREADABLE:
            return False
    return path[-1] not in fields


def _say(error: Exception) -> str:
    """The parser's words, without the byte that Python's own message about text quotes."""
    return f"not UTF-8 at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)
