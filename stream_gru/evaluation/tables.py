"""Results as tables: printed, and the same cells in JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table as Rich

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class FigureTable:
    """Rows under named columns; None where there is no figure."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    shown: bool = True  # printed; tables of single cases are only written

    def plain(self) -> dict[str, Any]:
        """For JSON: a row is an object; what is no number is null."""
        rows = [dict(zip(self.columns, map(_plain, row), strict=True)) for row in self.rows]
        return {"title": self.title, "note": self.note, "rows": rows}

    def drawn(self) -> Rich:
        """For the terminal."""
        from rich.table import Table as Rich

        table = Rich(title=self.title, caption=self.note or None, title_justify="left", caption_justify="left")
        for i, name in enumerate(self.columns):
            table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(_text, row))
        return table


def _plain(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, float):
        return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.3f}"
    return f"{cell:,}" if isinstance(cell, int) else cell
