"""`stream-gru tail`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stream_gru import settings
from stream_gru.cli.config import Assign, Config, flags
from stream_gru.cli.running import until_stopped

if TYPE_CHECKING:
    from stream_gru.settings import Settings

Kind = Literal["forecasts", "anomalies", "alerts", "dead-letters"]
_STYLES = {"anomaly": "red", "firing": "red", "resolved": "green", "warmup": "dim", "missing": "yellow"}


def tail(
    kind: Annotated[Kind, typer.Argument(help="What to read.")] = "forecasts",
    series: Annotated[str | None, typer.Option(help="Only this series.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The records as they are, one JSON object a line.")] = False,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Not only what is new.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for more at the end of the topic.")] = True,
    config: Config = None,
    assign: Assign = None,
) -> None:
    """Read forecasts, anomalies, alerts or dead letters as a table or as JSON lines, until Ctrl-C."""
    loaded = settings.load(config, flags(assign))
    until_stopped(_tail(loaded, kind, series, as_json, from_beginning, limit, follow))


async def _tail(
    loaded: Settings,
    kind: Kind,
    series: str | None,
    as_json: bool,
    from_beginning: bool,
    limit: int | None,
    follow: bool,
) -> None:
    from contextlib import aclosing

    from stream_gru.kafka.tail import read

    printer = _lines if as_json else _Table(kind).rows
    left = sys.maxsize if limit is None else limit
    reading = read(loaded, kind, series=series, from_beginning=from_beginning, follow=follow)
    async with aclosing(reading) as batches:
        async for payloads in batches:
            printer(payloads[:left])
            left -= len(payloads[:left])
            if not left:
                return


def _lines(payloads: list[dict[str, Any]]) -> None:
    import msgspec

    for payload in payloads:
        sys.stdout.buffer.write(msgspec.json.encode(payload) + b"\n")
    sys.stdout.flush()


class _Table:
    """Prints rows below each other as they come, the header once."""

    def __init__(self, kind: Kind) -> None:
        from rich.console import Console

        from stream_gru.tools.show import COLUMNS

        self._kind, self._columns = kind, COLUMNS[kind]
        wide = sum(width + 2 for width, _ in self._columns.values())
        self._console = Console(width=None if sys.stdout.isatty() else wide, highlight=False)
        self._header = True

    def rows(self, payloads: list[dict[str, Any]]) -> None:
        from rich.table import Table
        from rich.text import Text

        from stream_gru.tools.show import row

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=self._header)
        for name, (width, _) in self._columns.items():
            table.add_column(name, width=width, no_wrap=True, overflow="ellipsis")
        for payload in payloads:
            style = _STYLES.get(str(payload.get("status", payload.get("level"))), "")
            table.add_row(*map(Text, row(self._kind, payload)), style=style)
        self._console.print(table)
        self._header = False
