"""The wanted fields of a payload as msgspec structs, so that nothing else in it ever becomes a Python object."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from stream_gru.errors import SettingsError

Path = tuple[str, ...]


def parse(field: str) -> Path:
    r"""``data.value`` is the field `value` of the object `data`; a dot that belongs to a name is written ``\.``."""
    path = tuple(name.replace("\\.", ".") for name in re.split(r"(?<!\\)\.", field))
    if "" in path:
        raise SettingsError(f"input: {field!r} has a part without a name")
    return path


class PayloadLayout:
    """A struct with one attribute for each wanted field, nested like the paths."""

    def __init__(self, fields: Sequence[tuple[Path, Any]], optional: Collection[Path] = ()) -> None:
        """`fields` are paths, each with its type; those in `optional` come last, and are None where they are absent.

        Raises `SettingsError` when one can't be read beside another.
        """
        below: dict[str, list[tuple[Path, Any]]] = {}
        for (name, *rest), kind in fields:
            below.setdefault(name, []).append((tuple(rest), kind))
        self._inner: dict[str, PayloadLayout | None] = {}
        self._optional = {name for name, parts in below.items() if all((name, *path) in optional for path, _ in parts)}
        types: list[Any] = []
        for name, parts in below.items():
            whole = [kind for path, kind in parts if not path]
            if whole and len(parts) > 1:
                raise SettingsError(f"input: the field {name!r} is named twice, or both itself and a field within it")
            within = [path[1:] for path in optional if path[0] == name]
            self._inner[name] = layout = None if whole else PayloadLayout(parts, within)
            kind = whole[0] if layout is None else layout.struct
            types.append(kind | None if name in self._optional else kind)
        attributes = [f"f{i}" for i in range(len(below))]
        defaults = [(None,) if name in self._optional else () for name in below]
        try:
            self.struct: type[msgspec.Struct] = msgspec.defstruct(
                "Payload",
                [(*field, *default) for *field, default in zip(attributes, types, defaults, strict=True)],
                rename=dict(zip(attributes, below, strict=True)),
                gc=False,  # it holds plain values alone, so that no cycle can begin here
            )
        except ValueError as error:
            raise SettingsError(f"input: {error}") from None
        self._attributes = dict(zip(below, attributes, strict=True))

    def getter(self, path: Path) -> Callable[[Any], Any]:
        """A function that reads `path` of a struct; None where it is absent."""
        attributes, safe = self._walk(path)
        if safe:
            return attrgetter(".".join(attributes))

        def get(struct: Any) -> Any:
            for attribute in attributes:
                struct = None if struct is None else getattr(struct, attribute)
            return struct

        return get

    def _walk(self, path: Path) -> tuple[list[str], bool]:
        """The attributes that lead to `path`, and whether all objects on the way are there for sure."""
        layout, own = self._inner[path[0]], self._attributes[path[0]]
        if layout is None:
            return [own], True
        attributes, safe = layout._walk(path[1:])
        return [own, *attributes], safe and path[0] not in self._optional

    def build(self, columns: Mapping[Path, Iterable[Any]]) -> Iterable[msgspec.Struct]:
        """One struct for each row of `columns`."""
        parts: list[Iterable[Any]] = []
        for name, layout in self._inner.items():
            mine = {path[1:]: column for path, column in columns.items() if path[0] == name}
            parts.append(mine[()] if layout is None else layout.build(mine))
        return map(self.struct, *parts)
