"""Rows in Redis: one hash of control fields and a fixed number of hashes of rows a partition, moved by Lua scripts.

All keys of a partition share the hash tag ``{group:topic:partition}``. Commands are packed here as one buffer: it costs
a third of what the client's own packing does, and keeps the client's retries out of the way (rule R1).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.resources
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004 - Redis' own, and told apart from Python's below
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from stream_gru import tls
from stream_gru.errors import CredentialsError, FencedError, StoreError, StoreUnavailableError
from stream_gru.errors import chain as causes
from stream_gru.process.tasks import heed
from stream_gru.settings import State
from stream_gru.stores import Assigned, Chosen, Identity, Outcome, PartitionId, Write
from stream_gru.stores._aside import Aside

SCHEMES = ("redis", "rediss")
PORT = 6379
CONNECT_S = 5.0  # TLS included
SERIES_A_CALL = 1000
SCAN_COUNT = 1000
SCANS_AT_ONCE = 4  # buckets read side by side in a bulk restore
AHEAD = 4  # calls sent before the first of them is answered

# What a server says while it can't take a call now, which was refused as a whole and may be repeated. From inside a
# script Redis 6 says it within another error.
PASSING = re.compile(
    r"(^|: -)(OOM|MISCONF|LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|NOSCRIPT)\b"
)

# Redis before 7.2 does not call it NOPERM when a command inside a script is refused.
_DENIED = re.compile(r"can't (run this command or subcommand|access at least one of the keys)")
_CLOSED = re.compile(r"reset by peer|closed by server")

# What Redis says, and hangs up, when a call of any size comes from one who has not logged in: it does not look inside.
_STRANGER = re.compile(r"unauthenticated (multibulk|bulk) length")

Item = TypeVar("Item")


class _Header(dict[int, bytes]):
    """Length -> what stands before an argument of that length in a packed command."""

    def __missing__(self, length: int) -> bytes:
        self[length] = header = b"\r\n$%d\r\n" % length
        return header


_header = _Header()


class Script:
    """A Lua script of this folder and the name that Redis knows it by."""

    def __init__(self, name: str) -> None:
        self.text = importlib.resources.files(__package__).joinpath(f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def pack(self, keys: Sequence[bytes], arguments: Iterable[bytes], groups: Sequence[Sequence[bytes]] = ()) -> bytes:
        """One EVALSHA in Redis' protocol. `groups` hold further arguments, each already preceded by its header."""
        plain = [b"EVALSHA", self.sha, b"%d" % len(keys), *keys, *arguments]
        parts = [b"*%d" % (len(plain) + sum(map(len, groups)) // 2)]
        for argument in plain:
            parts += (_header[len(argument)], argument)
        return b"".join(chain(parts, *groups, (b"\r\n",)))


ASSIGN, WRITE, LOAD, SCAN, MARK, DELETE = map(Script, ("assign", "write", "load", "scan", "mark", "delete"))
CHOOSE, CHOSEN = map(Script, ("choose", "chosen"))
SCRIPTS = (ASSIGN, WRITE, LOAD, SCAN, MARK, DELETE, CHOOSE, CHOSEN)


class RedisStore:
    """A `Store` in Redis 6.2 or later, or what speaks its protocol and runs its Lua scripts."""

    def __init__(self, state: State) -> None:
        self.name = state.shown_url
        self._state = state
        self.buckets = state.buckets
        self._login_from = _login_from(state)
        self._may_change = state.password_file is not None  # a refusal may pass: the password may be rotated
        self._answered = False  # it took our calls once, so a refusal may pass, too
        address = state.address
        options: dict[str, Any] = {
            "host": address.host or "localhost",
            "port": address.port or PORT,
            "db": address.database,
            "protocol": 2,
            "socket_timeout": state.request_timeout_s,
            "socket_connect_timeout": min(CONNECT_S, state.request_timeout_s),
            "retry": Retry(NoBackoff(), 0),  # R1: what is repeated is decided by the caller
        }
        if any(state.login()):
            options["credential_provider"] = _Login(state)
        if address.scheme == "rediss":
            tls.context("state", state)  # what is wrong with the files is said now
            options |= {"connection_class": _TlsConnection, "state": state}
        self._pool = ConnectionPool(**options)
        self._client = Redis(connection_pool=self._pool)
        load = Connection().pack_command("SCRIPT", "LOAD", MARK.text)
        self._aside = Aside(self._pool.make_connection, b"".join(load))

    async def open(self) -> list[str]:
        try:
            memory, persistence, replication = [
                await heed(self._info(section)) for section in ("memory", "persistence", "replication")
            ]
            await heed(self._load_scripts())
        except (RedisError, OSError) as error:
            raise self._explain(error) from error
        self._answered = True
        self._aside.open()
        if replication.get("role") == "slave":  # R9
            raise StoreError(f"Redis at {self.name} is a replica, which may lag: give the address of its primary")
        policy = memory.get("maxmemory_policy")
        if policy not in (None, "noeviction"):
            raise StoreError(
                f"Redis at {self.name} runs with maxmemory-policy {policy} and would drop rows in silence. Set it with "
                "`redis-cli config set maxmemory-policy noeviction`, and in redis.conf"
            )
        warnings = []
        if policy is None:
            warnings.append(f"Redis at {self.name} does not tell its maxmemory-policy; make sure that it is noeviction")
        if persistence.get("aof_enabled") == 0:
            warnings.append(
                f"Redis at {self.name} keeps no append-only file: after a restart its rows are as old as its last "
                "snapshot, or gone, and are made again from what Kafka retains. Set `appendonly yes`"
            )
        return warnings

    async def assign(self, partition: PartitionId, owner: str, identity: Identity) -> Assigned:
        keys = self._keys(partition)
        arguments = owner.encode(), msgspec.json.encode(identity)
        [reply] = await self._call(bytes, [ASSIGN.pack(keys, arguments)])
        offset, kept, marks, rows, reading = reply
        try:
            return Assigned(
                None if offset is None else int(offset),
                None if kept is None else msgspec.json.decode(kept, type=Identity),
                rows,
                msgspec.json.decode(marks or b"{}", type=dict[str, str]),
                (reading or b"").decode(),
            )
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreError(
                f"the control fields of {partition} in Redis at {self.name} can't be read ({error}): another version "
                "of stream-gru wrote them. Run that one, or forget the state with `stream-gru state reset`"
            ) from None

    async def write(self, partition: PartitionId, writes: Sequence[Write]) -> Outcome:
        replies = await self._call(partial(self._pack, partition), writes)
        return Outcome.FENCED if b"FENCED" in replies else Outcome.OK

    async def load(
        self, partition: PartitionId, owner: str, confirmed: int, series: Sequence[bytes]
    ) -> list[bytes | None]:
        rows: list[bytes | None] = [None] * len(series)
        control, *buckets = self._keys(partition)
        order: list[int] = []
        commands = []
        for start in range(0, len(series), SERIES_A_CALL):
            groups: dict[int, list[int]] = {}
            for at in range(start, min(start + SERIES_A_CALL, len(series))):
                groups.setdefault(zlib.crc32(series[at]) % self.buckets, []).append(at)
            ordered = [at for group in groups.values() for at in group]
            order += ordered
            counts = [b"%d" % len(group) for group in groups.values()]
            fence = owner.encode(), b"%d" % confirmed
            packed = [part for at in ordered for part in (_header[len(series[at])], series[at])]
            commands.append(LOAD.pack([control, *(buckets[b] for b in groups)], [*fence, *counts], [packed]))
        replies = await self._call(bytes, commands)
        found = (row for reply in replies for group in self._unfenced(partition, reply) for row in group)
        for at, row in zip(order, found, strict=True):
            rows[at] = row
        return rows

    async def restore(
        self, partition: PartitionId, owner: str, confirmed: int
    ) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        control, *buckets = self._keys(partition)
        waiting = [(bucket, b"0") for bucket in reversed(buckets)]
        fence = owner.encode(), b"%d" % confirmed
        while waiting:
            now = [waiting.pop() for _ in range(min(SCANS_AT_ONCE, len(waiting)))]
            commands = [SCAN.pack([control, bucket], [*fence, cursor, b"%d" % SCAN_COUNT]) for bucket, cursor in now]
            for (bucket, _), reply in zip(now, await self._call(bytes, commands), strict=True):
                cursor, pairs = self._unfenced(partition, reply)
                if cursor != b"0":
                    waiting.append((bucket, cursor))
                yield list(zip(pairs[::2], pairs[1::2], strict=True))

    async def probe(self, partition: PartitionId, owner: str, confirmed: int) -> Outcome:
        return (await self.probes([(partition, owner, confirmed)]))[0]

    async def probes(self, owned: Sequence[tuple[PartitionId, str, int]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while len(outcomes) < len(owned):  # each call ends with the first that is fenced
            replies = await self._call(self._pack_probe, owned[len(outcomes) :])
            outcomes += [Outcome.FENCED if reply == b"FENCED" else Outcome.OK for reply in replies]
        return outcomes

    async def mark(self, partition: PartitionId, owner: str, reading: str) -> Outcome:
        [reply] = await self._call(self._pack_mark, [(partition, owner, reading)])
        return Outcome.FENCED if reply == b"FENCED" else Outcome.OK

    async def mark_soon(self, words: Sequence[tuple[PartitionId, str, str]]) -> None:
        await heed(self._aside.send(b"".join(map(self._pack_mark, words))))

    async def choose(self, group: str, chosen: Chosen, instead: Mapping[str, str]) -> None:
        replaced = [part.encode() for pair in instead.items() for part in pair]
        files = [part for name, content in chosen.files.items() for part in (name.encode(), content)]
        head = chosen.digest.encode(), chosen.name.encode(), b"%d" % len(instead)
        await self._call(bytes, [CHOOSE.pack([_model_key(group)], [*head, *replaced, *files])])

    async def chosen(self, group: str, *, files: bool) -> Chosen | None:
        [reply] = await self._call(bytes, [CHOSEN.pack([_model_key(group)], [b"%d" % files])])
        held: dict[str, bytes] = {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
        if not held:
            return None

        def under(prefix: str) -> dict[str, bytes]:
            return {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}

        replaced = {digest: name.decode() for digest, name in under("replaced:").items()}
        return Chosen(held["digest"].decode(), held["name"].decode(), replaced, under("file:"))

    async def forget(self, group: str) -> None:
        await self._call(bytes, [DELETE.pack([_model_key(group)], ())])

    async def delete(self, partition: PartitionId) -> int:
        try:
            kept = await self._client.hget(self._keys(partition)[0], "identity")
        except RedisError as error:
            raise self._explain(error) from error
        buckets = msgspec.json.decode(kept).get("buckets", self.buckets) if kept else self.buckets
        [rows] = await self._call(bytes, [DELETE.pack(self._keys(partition, buckets), ())])
        return int(rows)

    async def close(self) -> None:
        await self._aside.close()
        await self._client.aclose()
        await self._pool.disconnect()
        await asyncio.sleep(0)  # the turn in which the sockets of connections that failed are closed

    # -- the inside

    def _keys(self, partition: PartitionId, buckets: int | None = None) -> list[bytes]:
        tag = b"stream_gru:{%s}:" % str(partition).encode()
        return [tag + b"control", *(tag + b"%d" % bucket for bucket in range(buckets or self.buckets))]

    def _pack_mark(self, word: tuple[PartitionId, str, str]) -> bytes:
        partition, owner, reading = word
        return MARK.pack(self._keys(partition)[:1], (owner.encode(), reading.encode()))

    def _pack_probe(self, owned: tuple[PartitionId, str, int]) -> bytes:
        partition, owner, confirmed = owned
        return LOAD.pack(self._keys(partition)[:1], (owner.encode(), b"%d" % confirmed))

    def _pack(self, partition: PartitionId, write: Write) -> bytes:
        """One write as a command: its rows grouped by bucket."""
        control, *buckets = self._keys(partition)
        groups: list[list[bytes]] = [[] for _ in buckets]
        crc32, many, header = zlib.crc32, len(buckets), _header
        for series, row in zip(write.series, write.rows, strict=True):
            groups[crc32(series) % many] += (header[len(series)], series, header[len(row)], row)
        touched = [b for b, group in enumerate(groups) if group or write.identity is not None]
        return WRITE.pack(
            [control, *(buckets[b] for b in touched)],
            [
                write.owner.encode(),
                b"%d" % write.n,
                b"" if write.offset is None else b"%d" % write.offset,
                msgspec.json.encode(dict(write.marks)),
                b"" if write.identity is None else msgspec.json.encode(write.identity),
                *(b"%d" % (len(groups[b]) // 2) for b in touched),
            ],
            groups,
        )

    async def _call(self, pack: Callable[[Item], bytes], items: Sequence[Item]) -> list[Any]:
        """Send one command for each item down one connection; their replies, up to and with the first FENCED."""
        if not items:
            return []
        try:
            replies = await heed(self._exchange(pack, items))
            if isinstance(replies[-1], NoScriptError):  # the server was restarted; that script did not run
                await heed(self._load_scripts())
                replies = await heed(self._exchange(pack, items))
        except (RedisError, OSError) as error:
            raise self._explain(error) from error
        if isinstance(replies[-1], ResponseError):
            raise self._explain(replies[-1]) from replies[-1]
        return replies

    async def _exchange(self, pack: Callable[[Item], bytes], items: Sequence[Item]) -> list[Any]:
        """Replies up to the first that is not good.

        What was sent behind a refused write (out of memory, say) looks fenced and is not: those replies mean nothing.
        """
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # redis: its decorator
        replies: list[Any] = []
        sent = 0
        try:
            while len(replies) < len(items):
                while sent < len(items) and sent - len(replies) < AHEAD:
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
            found: dict[str, Any] = await self._client.info(section)
        except ResponseError:
            return {}
        return found

    async def _load_scripts(self) -> None:
        for script in SCRIPTS:
            await self._client.script_load(script.text)

    def _unfenced(self, partition: PartitionId, reply: Any) -> Any:
        if reply == b"FENCED":
            raise FencedError(f"{partition}: another worker has taken it, or Redis at {self.name} went back in time")
        return reply

    def _refusal(self, error: Exception) -> str | None:
        """Why it is not we that may call, or not it that we may trust; None: that is not the matter."""
        if isinstance(error, AuthenticationError | AuthorizationError) or _STRANGER.search(str(error)):
            if self._login_from is None:
                return "wants a password: set state.password_file, and state.username if there is one"
            return f"refused the user or the password of {self._login_from}: {error}"
        problem = tls.explain(error, "state", self._state)
        return problem and f"can't be reached over TLS: {problem}"

    def _other_scheme(self, error: Exception) -> str:
        """What may be behind it that a port never answered: it is spoken to in the other way, with or without TLS."""
        if self._answered:
            return ""
        broken = _CLOSED.search(str(error))
        if self._pool.connection_class is _TlsConnection:
            if broken:  # TLS 1.3: the handshake ends before the server has looked
                return "; does it ask for a certificate (state.ssl_certfile), or not trust it?"
            if isinstance(error, TimeoutError):
                return "; if it is a port without TLS, write redis:// in state.url"
            return ""
        return "; if it is a port for TLS, write rediss:// in state.url" if broken else ""

    def _explain(self, error: Exception) -> StoreError:
        """Redis' error as ours: repeatable if it passes by itself."""
        what = f"Redis at {self.name}"
        for cause in causes(error):
            if isinstance(cause, CredentialsError):  # a file that is away or in the making
                return StoreUnavailableError(f"no connection to {what}: {cause}")
        if refusal := self._refusal(error):
            passing = self._answered or self._may_change
            return (StoreUnavailableError if passing else StoreError)(f"{what} {refusal}")
        said = f"{getattr(error, 'status_code', None) or ''} {error}".strip()
        if isinstance(error, NoPermissionError) or _DENIED.search(said):
            return StoreUnavailableError(
                f"{what}: its user lacks a right: {said}{_denied_command(said)}. Grant it with ACL SETUSER; "
                "docs/security.md has the line"
            )
        if isinstance(error, ConnectionError | TimeoutError | OSError):
            return StoreUnavailableError(f"{what} does not answer: {error}{self._other_scheme(error)}")
        if PASSING.search(said):
            return StoreUnavailableError(f"{what} can't take the call now: {said}")
        return StoreError(f"{what} refused the call: {said}")


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


def _login_from(state: State) -> str | None:
    """Where the password is kept, in words; None: there is none."""
    if state.password_file is not None:
        return f"state.password_file, {state.password_file}"
    if state.password is not None:
        return "state.password"
    return "state.url" if state.address.password is not None else None


def _denied_command(said: str) -> str:
    """Which command of our scripts it was: Redis before 7.2 tells only the line."""
    sha, line = re.search(r"\b[0-9a-f]{40}\b", said), re.search(r"@?user_script:(\d+)", said)
    if sha is None or line is None:
        return ""
    for script in SCRIPTS:
        if script.sha.decode() == sha[0]:
            lines = script.text.decode().splitlines()[: int(line[1])]
            called = re.findall(r"redis\.call\('(\w+)'", "\n".join(lines))
            return f" ({called[-1].lower()})" if called else ""
    return ""


def _model_key(group: str) -> bytes:
    return b"stream_gru:{%s}:model" % group.encode()


def connect(state: State) -> RedisStore:
    """A store that is not connected yet."""
    return RedisStore(state)
