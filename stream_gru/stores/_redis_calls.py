"""Calls to Redis: packed commands down pooled connections, their replies in order, and errors as ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - Redis' own
    NoScriptError,
    RedisError,
    ResponseError,
)

from stream_gru import tls
from stream_gru.errors import CredentialsError
from stream_gru.process.tasks import heed
from stream_gru.settings import State
from stream_gru.stores._redis_causes import Causes
from stream_gru.stores._redis_scripts import SCRIPTS

_REDIS_PORT = 6379  # Redis' own default
_CONNECT_S = 5.0  # at most, TLS included: a server that is there needs a fraction of it
_CALLS_AHEAD = 4  # sent before the first of them is answered, so that neither side waits for the other

Item = TypeVar("Item")


class Calls:
    """One server; connects by itself, and never repeats a call (rule R1)."""

    def __init__(self, state: State) -> None:
        self._causes = Causes(state)
        self._pool = ConnectionPool(**_options(state))
        self.client = Redis(connection_pool=self._pool)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raises what the client raises inside as a `StoreError`, which is a `StoreUnavailableError` if it passes."""
        try:
            yield
        except (RedisError, OSError) as error:
            raise self._causes.explain(error) from error

    async def open(self) -> dict[str, dict[str, Any]]:
        """Connect and load the scripts; what the server says of itself, by section. Raises `StoreError`."""
        with self.explained():
            told = {name: await heed(self._info(name)) for name in ("memory", "persistence", "replication")}
            await heed(self._load_scripts())
        self._causes.answered = True
        return told

    async def send(self, pack: Callable[[Item], bytes], items: Sequence[Item]) -> list[Any]:
        """Send one command for each item down one connection; their replies, up to and with the first FENCED."""
        if not items:
            return []
        with self.explained():
            replies = await heed(self._exchange(pack, items))
            if isinstance(replies[-1], NoScriptError):  # the server was restarted; that script did not run
                await heed(self._load_scripts())
                replies = await heed(self._exchange(pack, items))
            if isinstance(replies[-1], ResponseError):
                raise replies[-1]
        return replies

    def connection(self) -> AbstractConnection:
        """One of its own, outside of the pool, not yet connected."""
        made: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis ships no type
        return made

    async def close(self) -> None:
        """Disconnect."""
        await self.client.aclose()
        await self._pool.disconnect()
        await asyncio.sleep(0)  # the turn in which the sockets of connections that failed are closed

    async def _exchange(self, pack: Callable[[Item], bytes], items: Sequence[Item]) -> list[Any]:
        """Replies up to the first that is not good.

        What was sent behind a refused write (out of memory, say) looks fenced and is not: those replies mean nothing.
        """
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # redis: its decorator
        replies: list[Any] = []
        sent = 0
        try:
            while len(replies) < len(items):
                while sent < len(items) and sent - len(replies) < _CALLS_AHEAD:
                    await connection.send_packed_command(pack(items[sent]))
                    sent += 1
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
                if isinstance(replies[-1], ResponseError) or replies[-1] == b"FENCED":
                    break
            return replies
        finally:
            if len(replies) < sent:  # what is still to come must not be taken for the answer to something else
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def _info(self, section: str) -> dict[str, Any]:
        """Empty where the server does not say: a user may be denied INFO."""
        try:
            found: dict[str, Any] = await self.client.info(section)
        except ResponseError:
            return {}
        return found

    async def _load_scripts(self) -> None:
        for script in SCRIPTS:
            await self.client.script_load(script.text)


def _options(state: State) -> dict[str, Any]:
    """Our settings in the client's words. Raises `CredentialsError` for files of TLS that can't be used."""
    address = state.address
    options: dict[str, Any] = {
        "host": address.host or "localhost",
        "port": address.port or _REDIS_PORT,
        "db": address.database,
        "protocol": 2,
        "socket_timeout": state.request_timeout_s,
        "socket_connect_timeout": min(_CONNECT_S, state.request_timeout_s),
        "retry": Retry(NoBackoff(), 0),  # R1: what is repeated is decided by the caller
    }
    if any(state.login()):
        options["credential_provider"] = _Login(state)
    if address.scheme == "rediss":
        tls.context("state", state)  # what is wrong with the files is said now
        options |= {"connection_class": _TlsConnection, "state": state}
    return options


class _Login(CredentialProvider):
    """User and password for each new connection; a file is read again, so that a rotation needs no restart."""

    def __init__(self, state: State) -> None:
        self._state = state

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            user, password = self._state.login()
        except CredentialsError as error:
            raise ConnectionError(str(error)) from error
        return (user, password or "") if user else (password or "",)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


class _TlsConnection(SSLConnection):
    """Checks the server as Kafka's are checked, and reads certificates again for each connection."""

    def __init__(self, *, state: State, **options: Any) -> None:
        super().__init__(**options)
        self._state = state

    async def disconnect(self, *args: Any, **options: Any) -> None:
        """Without waiting for the other side to end TLS properly: it may be gone, and asyncio waits for 30 s."""
        writer = self._writer
        try:
            await super().disconnect(*args, **options)
        finally:
            if writer is not None:
                writer.transport.abort()

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**Connection._connection_arguments(self), "ssl": tls.context("state", self._state)}
