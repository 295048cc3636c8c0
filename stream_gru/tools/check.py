"""Is a deployment in order? What settings can't say one by one: the bundle, files, how they fit, and the servers."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator

from stream_gru import codecs, metrics, stores, tls
from stream_gru.errors import StreamGruError
from stream_gru.settings import Kafka, Settings
from stream_gru.tools import topics

log = logging.getLogger(__name__)

ANSWER_S = 4.0  # to wait for one answer of a server
LIMIT_S = 7.0  # for all that servers are asked


def problems(settings: Settings, connect: bool = False) -> list[str]:
    """What is wrong with the settings and with the files that they name, one line each.

    With `connect` Kafka, its topics and the store are asked too, unless what is wrong makes that pointless.
    """
    lines = [*_unused(settings.kafka), *_wrong(settings, _kafka, _store, _page, Settings.require_room)]
    end = time.monotonic() + LIMIT_S
    asking = _ask(settings) if connect and not lines else []
    lines += _wrong(settings, _model)  # meanwhile: it takes seconds to load
    return lines + [line for one in asking for line in one.answer(end - time.monotonic())]


def _wrong(settings: Settings, *parts: Callable[[Settings], None]) -> Iterator[str]:
    for part in parts:
        try:
            part(settings)
        except StreamGruError as error:
            yield str(error)


def _ask(settings: Settings) -> list[_Asking]:
    """Questions to the servers, side by side."""
    patient = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"request_timeout_s": ANSWER_S}),
            "state": settings.state.model_copy(update={"request_timeout_s": ANSWER_S}),
        }
    )
    return [
        _Asking(f"Kafka at {settings.kafka.bootstrap_servers}", lambda: topics.check(patient)),
        _Asking(f"the store at {settings.state.shown_url}", lambda: asyncio.run(_opened(patient))),
    ]


class _Asking(threading.Thread):
    """A question to a server on a thread of its own, which is left behind when it takes too long."""

    def __init__(self, server: str, question: Callable[[], list[str]]) -> None:
        super().__init__(daemon=True)
        self._server, self._question = server, question
        self._lines: list[str] = []
        self._failure: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._lines = self._question()
        except StreamGruError as error:
            self._lines = [str(error)]
        except Exception as error:
            self._failure = error

    def answer(self, timeout_s: float) -> list[str]:
        """What is wrong, as far as it is known by then."""
        self.join(max(timeout_s, 0))
        if self._failure:
            raise self._failure
        return [f"{self._server} does not answer within {LIMIT_S:g} s"] if self.is_alive() else self._lines


async def _opened(settings: Settings) -> list[str]:
    """Nothing, or the error of a store that can't be used; what it warns of is no error."""
    store = stores.from_settings(settings.state)
    try:
        for warning in await store.open():
            log.warning("warning: %s", warning)
    finally:
        await store.close()
    return []


def _kafka(settings: Settings) -> None:
    if settings.kafka.security_protocol.endswith("SSL"):
        tls.context("kafka", settings.kafka)
    if settings.kafka.security_protocol.startswith("SASL"):
        settings.kafka.password()


def _store(settings: Settings) -> None:
    stores.from_settings(settings.state)


def _page(settings: Settings) -> None:
    metrics.require_address(settings.metrics.host, settings.metrics.port)


def _model(settings: Settings) -> None:
    """The bundle loads and fits the readings, as a worker will find."""
    from stream_gru.engine.stepper import Stepper

    engine = Stepper.of(settings, capacity=1)
    engine.bundle.description.context.require(settings.input.covariates)
    codecs.load(settings.input, engine.steps)


def _unused(kafka: Kafka) -> Iterator[str]:
    """What is set and means nothing: a connection is less safe than somebody thought."""
    protocol = kafka.security_protocol
    for prefix, used in (("ssl_", protocol.endswith("SSL")), ("sasl_", protocol.startswith("SASL"))):
        given = [name for name, value in kafka if name.startswith(prefix) and value is not None]
        if given and not used:
            names = ", ".join(f"kafka.{name}" for name in given)
            yield f"{names}: not used with kafka.security_protocol {protocol}; SSL and SASL_SSL encrypt, SASL_ logs in"
