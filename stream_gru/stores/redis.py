"""Rows in Redis: one hash of control fields and a fixed number of hashes of rows a partition, moved by Lua scripts.

All keys of a partition share the hash tag ``{group:topic:partition}``. Commands are packed here as one buffer: it costs
a third of what the client's own packing does, and keeps the client's retries out of the way (rule R1).
"""

from __future__ import annotations

import hashlib
import importlib.resources
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import msgspec
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004 - Redis' own, and told apart from Python's below
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from stream_gru.errors import FencedError, SettingsError, StoreError, StoreUnavailableError
from stream_gru.settings import mask_url
from stream_gru.stores import Assigned, Identity, Outcome, PartitionId, Write

SCHEMES = ("redis", "rediss")
SERIES_A_CALL = 1000
SCAN_COUNT = 1000
SCANS_AT_ONCE = 4  # buckets read side by side in a bulk restore
AHEAD = 4  # calls sent before the first of them is answered

# What a server says while it can't take a call now, which was refused as a whole and may be repeated. From inside a
# script Redis 6 says it within another error.
PASSING = re.compile(
    r"(^|: -)(OOM|MISCONF|LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|NOSCRIPT)\b"
)

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


ASSIGN, WRITE, LOAD, SCAN, DELETE = (Script(name) for name in ("assign", "write", "load", "scan", "delete"))


class RedisStore:
    """A `Store` in Redis 6.2 or later, or what speaks its protocol and runs its Lua scripts."""

    def __init__(self, url: str, buckets: int, timeout_s: float) -> None:
        self.name = mask_url(url)
        self.buckets = buckets
        try:
            self._pool = ConnectionPool.from_url(
                url,
                protocol=2,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),  # R1: what is repeated is decided by the caller
            )
        except ValueError as error:
            raise SettingsError(f"state.url: {self.name} is not a Redis URL: {error}") from None
        self._client = Redis(connection_pool=self._pool)

    async def open(self) -> list[str]:
        try:
            memory, persistence, replication = [await self._info(s) for s in ("memory", "persistence", "replication")]
            await self._load_scripts()
        except RedisError as error:
            raise self._explain(error) from error
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
        offset, kept, marks, rows = reply
        try:
            return Assigned(
                None if offset is None else int(offset),
                None if kept is None else msgspec.json.decode(kept, type=Identity),
                rows,
                msgspec.json.decode(marks or b"{}", type=dict[str, str]),
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
        control = self._keys(partition)[:1]
        [reply] = await self._call(bytes, [LOAD.pack(control, (owner.encode(), b"%d" % confirmed))])
        return Outcome.FENCED if reply == b"FENCED" else Outcome.OK

    async def delete(self, partition: PartitionId) -> int:
        try:
            kept = await self._client.hget(self._keys(partition)[0], "identity")
        except RedisError as error:
            raise self._explain(error) from error
        buckets = msgspec.json.decode(kept).get("buckets", self.buckets) if kept else self.buckets
        [rows] = await self._call(bytes, [DELETE.pack(self._keys(partition, buckets), ())])
        return int(rows)

    async def close(self) -> None:
        await self._client.aclose()
        await self._pool.disconnect()

    # -- the inside

    def _keys(self, partition: PartitionId, buckets: int | None = None) -> list[bytes]:
        tag = b"stream_gru:{%s}:" % str(partition).encode()
        return [tag + b"control", *(tag + b"%d" % bucket for bucket in range(buckets or self.buckets))]

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
            replies = await self._exchange(pack, items)
            if isinstance(replies[-1], NoScriptError):  # the server was restarted; that script did not run
                await self._load_scripts()
                replies = await self._exchange(pack, items)
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
        for script in (ASSIGN, WRITE, LOAD, SCAN, DELETE):
            await self._client.script_load(script.text)

    def _unfenced(self, partition: PartitionId, reply: Any) -> Any:
        if reply == b"FENCED":
            raise FencedError(f"{partition}: another worker has taken it, or Redis at {self.name} went back in time")
        return reply

    def _explain(self, error: Exception) -> StoreError:
        """Redis' error as ours: repeatable if it passes by itself."""
        what = f"Redis at {self.name}"
        if isinstance(error, AuthenticationError | AuthorizationError):
            return StoreError(f"{what} refused the user or the password of state.url: {error}")
        if isinstance(error, ConnectionError | TimeoutError | OSError):
            return StoreUnavailableError(f"{what} does not answer: {error}")
        said = f"{getattr(error, 'status_code', None) or ''} {error}".strip()
        if PASSING.search(said):
            return StoreUnavailableError(f"{what} can't take the call now: {said}")
        return StoreError(f"{what} refused the call: {said}")


def connect(url: str, buckets: int, timeout_s: float) -> RedisStore:
    """A store that is not connected yet."""
    return RedisStore(url, buckets, timeout_s)
