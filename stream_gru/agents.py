"""``faust -A stream_gru.agents worker`` finds `app` here and runs the same as `stream-gru worker`."""

from __future__ import annotations

from typing import Any, NoReturn

import faust

from stream_gru import service
from stream_gru import settings as settings_
from stream_gru.alerts.agent import App, create_app
from stream_gru.metrics import Metrics


class FaustWorker(faust.Worker):  # type: ignore[misc] # faust has no types
    """What `faust worker` starts: the very thing that `stream-gru worker` does.

    Faust's own would let its app's crash go by and take the data plane down with the app.
    """

    def __init__(self, app: App, *args: Any, **options: Any) -> None:
        app.conf.web_enabled = False  # `faust worker` turns it on, on all interfaces, where it shows the tables
        super().__init__(app, *args, **options)

    def execute_from_commandline(self) -> NoReturn:
        """Run until a signal; the exit code is that of `service.run`."""
        raise SystemExit(service.run(self.app.settings))


def __getattr__(name: str) -> Any:
    """`app`, made from the settings when Faust's command asks for it."""
    if name == "app":
        made = create_app(settings_.load(), Metrics())
        made.conf.Worker = FaustWorker
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
