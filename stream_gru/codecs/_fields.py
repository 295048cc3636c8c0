"""The wanted fields of a payload as msgspec structs, so that nothing else in it ever becomes a Python object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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


class Layout:
    """A struct with one attribute for each wanted field, nested like the paths."""

    def __init__(self, fields: Sequence[tuple[Path, Any]]) -> None:
        """`fields` are paths, each with its type. Raises `SettingsError` when one can't be read beside another."""
        below: dict[str, list[tuple[Path, Any]]] = {}
        for (name, *rest), kind in fields:
            below.setdefault(name, []).append((tuple(rest), kind))
        self._inner: dict[str, Layout | None] = {}
        types = []
        for name, parts in below.items():
            whole = [kind for path, kind in parts if not path]
            if whole and len(parts) > 1:
                raise SettingsError(f"input: the field {name!r} is named twice, or both itself and a field within it")
            self._inner[name] = layout = None if whole else Layout(parts)
            types.append(whole[0] if layout is None else layout.struct)
        attributes = [f"f{i}" for i in range(len(below))]
        try:
            self.struct: type[msgspec.Struct] = msgspec.defstruct(
                "Payload",
                list(zip(attributes, types, strict=True)),
                rename=dict(zip(attributes, below, strict=True)),
                gc=False,  # it holds plain values alone, so that no cycle can begin here
            )
        except ValueError as error:
            raise SettingsError(f"input: {error}") from None
        self._attributes = dict(zip(below, attributes, strict=True))

    def attribute(self, path: Path) -> str:
        """The dotted name for `operator.attrgetter` that reads `path`."""
        layout = self._inner[path[0]]
        own = self._attributes[path[0]]
        return own if layout is None else f"{own}.{layout.attribute(path[1:])}"

    def build(self, columns: Mapping[Path, Iterable[Any]]) -> Iterable[msgspec.Struct]:
        """One struct for each row of `columns`."""
        parts: list[Iterable[Any]] = []
        for name, layout in self._inner.items():
            mine = {path[1:]: column for path, column in columns.items() if path[0] == name}
            parts.append(mine[()] if layout is None else layout.build(mine))
        return map(self.struct, *parts)
