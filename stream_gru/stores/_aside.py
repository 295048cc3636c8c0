"""A connection to Redis for what nobody waits for: what is sent is with the kernel at once, answers are dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

_RETRY_S = 5.0  # between two attempts to connect; what is lost meanwhile costs a suspect more, and no record
_CLOSE_S = 0.5  # for a connection that is being made to heed that it is cancelled
_READ_BYTES = 1 << 16  # of answers at once, which nobody looks into


class Aside:
    """Opens itself again after a while where it broke; what is sent meanwhile is lost."""

    def __init__(self, connect: Callable[[], AbstractConnection], greeting: bytes) -> None:
        """`greeting` is sent first on each new connection, and again where the server says that it lacks a script."""
        self._connect = connect
        self._greeting = greeting
        self._connection: AbstractConnection | None = None
        self._working: asyncio.Task[None] | None = None
        self._tried = -_RETRY_S

    async def send(self, commands: bytes) -> None:
        """Send packed commands, unless there is no connection now."""
        if self._connection is None:
            self.open()
            return
        with suppress(RedisError, OSError, asyncio.TimeoutError):
            await self._connection.send_packed_command(commands, check_health=False)

    def open(self) -> None:
        """Begin to connect, if that was not tried just now."""
        now = time.monotonic()
        if (self._working is None or self._working.done()) and now - self._tried >= _RETRY_S:
            self._tried = now
            self._working = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Disconnect."""
        while self._working is not None and not self._working.done():
            self._working.cancel()  # more than once: what connects may swallow it
            await asyncio.wait({self._working}, timeout=_CLOSE_S)

    async def _work(self) -> None:
        connection = self._connect()
        try:
            with suppress(RedisError, OSError, asyncio.TimeoutError):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis: its decorator
                await connection.send_packed_command(self._greeting, check_health=False)
                self._connection, reader = connection, connection._reader  # private; there is no other way to skip
                while reader is not None and (answers := await reader.read(_READ_BYTES)):
                    if b"NOSCRIPT" in answers:
                        await connection.send_packed_command(self._greeting, check_health=False)
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)
