"""A TCP proxy that can be told to misbehave. It runs on a thread of its own, so any code may use it.

Put it between a worker and a server: for Redis, give the worker its address; for Kafka, make it the advertised listener
(`tests.chaos.servers.BrokerBehindProxy`).
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Self, TypeVar

HOST = "127.0.0.1"
_READ = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER that makes a close a reset
T = TypeVar("T")


class Mode(Enum):
    """What happens to what is sent. `Proxy` has a method for each."""

    PASS = "pass"  # noqa: S105 - not a password
    BLACK_HOLE = "black hole"
    SWALLOW = "swallow"
    REFUSE = "refuse"
    HOLD = "hold"


@dataclass(eq=False)
class _Connection:
    """The two halves of what a client takes for one connection."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    maimed: bool = False  # bytes of it are lost: it can only be reset
    late: list[bytes] = field(default_factory=list)  # requests that were held back

    def reset(self) -> None:
        for writer in (self.client, self.server):
            raw = writer.get_extra_info("socket")
            if raw is not None and not writer.transport.is_closing():
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Proxy:
    """Listens on `port` and passes everything on to `upstream`, a port of the loopback interface that may be changed.

    Every fault replaces the one before; `heal` ends it.
    """

    def __init__(self, upstream: int, port: int = 0) -> None:
        self.upstream = upstream
        self.port = port
        self.accepted = 0  # connections
        self._mode = Mode.PASS
        self._delay_s = 0.0
        self._lose, self._chance = 0.0, random.Random(0)
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open)
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._shut)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- faults

    def heal(self) -> None:
        """Pass everything on. What a black hole held back arrives; connections that have lost bytes are reset."""
        self._set(Mode.PASS)

    def black_hole(self) -> None:
        """Nothing arrives on either side, as when packets are dropped: it arrives when the fault ends, if then."""
        self._set(Mode.BLACK_HOLE)

    def swallow(self) -> None:
        """Take everything, on both sides, and throw it away."""
        self._set(Mode.SWALLOW)

    def refuse(self) -> None:
        """Reset every connection, and each new one at once."""
        self._set(Mode.REFUSE)

    def hold(self) -> None:
        """Hold requests back until `release`, also when their client has given up by then. Replies pass."""
        self._set(Mode.HOLD)

    def delay(self, seconds: float) -> None:
        """Everything takes so much longer, each way."""
        self._set(Mode.PASS, delay_s=seconds)

    def lose_replies(self, fraction: float, seed: int = 0) -> None:
        """That part of what the server answers is lost, and the connection with it: the request was executed."""
        self._chance = random.Random(seed)
        self._set(Mode.PASS, lose=fraction)

    def half_close(self) -> None:
        """The server's side of every present connection ends; the client's stays open."""
        self._run(self._half_close)

    def reset(self) -> None:
        """Reset every present connection."""
        self._run(self._reset)

    # -- requests that were held back

    @property
    def held(self) -> int:
        """How many bytes of requests are held back."""
        return sum(len(data) for connection in list(self._connections) for data in connection.late)

    def release(self) -> None:
        """What was held back is sent to the server now."""
        self._run(self._release)

    # -- inside

    def _set(self, mode: Mode, *, delay_s: float = 0.0, lose: float = 0.0) -> None:
        async def change() -> None:
            async with self._changed:
                self._mode, self._delay_s, self._lose = mode, delay_s, lose
                self._changed.notify_all()
            for connection in list(self._connections):
                if mode is Mode.REFUSE or (connection.maimed and mode is not Mode.SWALLOW):
                    connection.reset()

        self._run(change)

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def working() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(working(), self._loop).result(10)

    async def _open(self) -> None:
        self._changed = asyncio.Condition()
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reset()
        await asyncio.sleep(0)  # lets the transports that were aborted close their sockets

    async def _reset(self) -> None:
        for connection in list(self._connections):
            connection.reset()

    async def _half_close(self) -> None:
        for connection in list(self._connections):
            if connection.client.can_write_eof() and not connection.client.is_closing():
                connection.client.write_eof()

    async def _release(self) -> None:
        for connection in list(self._connections):
            for data in connection.late:
                connection.server.write(data)
            connection.late.clear()
            await connection.server.drain()

    async def _serve(self, requests: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        connection = None
        try:
            if self._mode is Mode.REFUSE:
                return
            replies, server = await asyncio.open_connection(HOST, self.upstream)
            connection = _Connection(client, server)
            self._connections.add(connection)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(connection, requests))
                group.create_task(self._replies(connection, replies))
        except* OSError:  # either side went away, or the server isn't there: the other side shall notice
            pass
        finally:
            self._tasks.discard(task)
            ended = connection or _Connection(client, client)
            self._connections.discard(ended)
            ended.reset()

    async def _requests(self, connection: _Connection, source: asyncio.StreamReader) -> None:
        while data := await source.read(_READ):
            if await self._arrives(connection):
                if connection.late or self._mode is Mode.HOLD:
                    connection.late.append(data)
                else:
                    connection.server.write(data)
                    await connection.server.drain()
        while connection.late:  # noqa: ASYNC110 - its client is gone, but what it sent may yet arrive
            await asyncio.sleep(0.01)
        await self._arrives(connection)
        connection.server.write_eof()

    async def _replies(self, connection: _Connection, source: asyncio.StreamReader) -> None:
        while data := await source.read(_READ):
            if await self._arrives(connection):
                if self._chance.random() < self._lose:
                    raise ConnectionResetError("a reply was to be lost")
                if connection.client.transport.is_closing():
                    raise ConnectionResetError("the client is gone")
                connection.client.write(data)
                await connection.client.drain()
        await self._arrives(connection)
        raise ConnectionResetError("the server ended the connection")

    async def _arrives(self, connection: _Connection) -> bool:
        """Wait as long as the fault wants; whether the bytes then go on."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        async with self._changed:
            await self._changed.wait_for(lambda: self._mode is not Mode.BLACK_HOLE)
        if self._mode is Mode.SWALLOW:
            connection.maimed = True
        return not connection.maimed


__all__ = ["HOST", "Proxy"]
