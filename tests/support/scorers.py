"""The service with a data plane that does nothing but what the name of a scorer says."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Any

from stream_gru import service, settings
from stream_gru.errors import IdentityError
from stream_gru.metrics import Health, Metrics, StatusServer
from stream_gru.settings import Settings

log = logging.getLogger(__name__)


class Scorer:
    """Ready at once, and idle until stopped. It can be commanded: it knows the series `known` alone."""

    def __init__(self, made_from: Settings) -> None:
        self._settings = made_from
        self._stopping = asyncio.Event()
        self.metrics, self.health = Metrics(), Health()
        self.control: Any = self
        self.turns = 0

    async def run(self) -> None:
        self.health.report("scorer")
        server = StatusServer(self._settings.metrics.host, self._settings.metrics.port, self.metrics, self.health)
        log.info("http://%s:%d", self._settings.metrics.host, server.port)
        try:
            while not self._stopping.is_set():
                await self.turn()
                self.turns += 1
        finally:
            server.close()

    async def stop(self) -> None:
        self._stopping.set()

    async def turn(self) -> None:
        await asyncio.sleep(0.01)

    async def reset(self, series: bytes, topic: str | None = None, partition: int | None = None) -> list[str]:
        if series == b"broken":
            raise RuntimeError("it broke")
        return ["readings-0"] if series == b"known" and partition in (None, 0) else []

    async def reload(self, bundle: Path | None) -> dict[str, Any]:
        if bundle == Path("/nowhere"):
            raise IdentityError("there is no bundle /nowhere")
        return {"model": str(bundle)}

    async def report(self) -> dict[str, Any]:
        return {"turns": self.turns}


class Failing(Scorer):
    """Raises once the control plane is there."""

    async def turn(self) -> None:
        await super().turn()
        if not (len(self.health.parts) > 1 and self.health.ready):
            return
        log.info("raising at %f", time.time())
        raise RuntimeError("a step failed")


class Refusing(Scorer):
    """Raises something that the user can mend."""

    async def turn(self) -> None:
        raise IdentityError("the stored rows belong to another model")


class Ending(Scorer):
    """Returns though nobody asked."""

    async def turn(self) -> None:
        self._stopping.set()


class Hung(Scorer):
    """Does not end when it is asked to, nor when it is cancelled."""

    async def turn(self) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                log.info("cancelled")


def main(name: str, grace_s: float = service._GRACE_S) -> None:
    """For `tests.support.forked.Worker`, and for a process that has imported nothing else."""
    service._GRACE_S = grace_s
    sys.exit(service.run(settings.load(), globals()[name]))


if __name__ == "__main__":
    main(sys.argv[1])
