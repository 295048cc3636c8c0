"""A webhook receiver for Alertmanager that writes each alert as a line to stdout. Standard library only.

python log_alerts.py [PORT]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 9094
MAX_BYTES = 4 << 20


def lines(notification: dict[str, Any]) -> Iterator[str]:
    """One line an alert: state, severity, name, what it is about, and what to do first while it fires."""
    for alert in notification["alerts"]:
        labels, notes = alert.get("labels", {}), alert.get("annotations", {})
        firing = alert["status"] == "firing"
        since = alert.get("startsAt" if firing else "endsAt", "")
        text = " ".join(notes[name] for name in ("summary", "description") if name in notes)
        hint = f" | {notes['runbook']}" if firing and "runbook" in notes else ""
        line = f"{since} {alert['status']} {labels.get('severity', '-')} {labels.get('alertname', '-')}: {text}{hint}"
        yield " ".join(line.split())  # an annotation may hold line breaks


class Handler(BaseHTTPRequestHandler):
    """POST a notification anywhere; GET answers 200 for the health check."""

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", "0"))
        if size > MAX_BYTES:
            self._answer(413)
            return
        try:
            text = "".join(line + "\n" for line in lines(json.loads(self.rfile.read(size))))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._answer(400)  # Alertmanager logs it and does not send it again
            return
        sys.stdout.write(text)
        sys.stdout.flush()
        self._answer(200)

    def do_GET(self) -> None:
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Only alerts belong in this log."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
    # Reachable from Alertmanager's container; no port of it is published.
    ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()  # noqa: S104
