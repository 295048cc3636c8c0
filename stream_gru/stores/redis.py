"""Rows in Redis: one hash of control fields and a fixed number of hashes of rows a partition, moved by Lua scripts.

All keys of a partition share the hash tag ``{group:topic:partition}``. The scripts keep the rules; `_redis_calls` moves
them, and `_redis_causes` says in words what went wrong.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from redis.asyncio import Connection

from stream_gru.errors import FencedError, StoreError
from stream_gru.process.tasks import heed
from stream_gru.settings import State
from stream_gru.stores import Assigned, Chosen, Identity, PartitionId, StoreAnswer, Write
from stream_gru.stores._aside import Aside
from stream_gru.stores._redis_calls import Calls
from stream_gru.stores._redis_scripts import ASSIGN, CHOOSE, CHOSEN, DELETE, LOAD, MARK, SCAN, WRITE, header

SCHEMES = ("redis", "rediss")
_SERIES_A_CALL = 1000  # a Lua call blocks the server, and so many for well under a millisecond
_FIELDS_A_SCAN = 1000  # asked of HSCAN in one call, for the same reason
_SCANS_AT_ONCE = 4  # buckets read side by side in a bulk restore, so that the server always has one to do


class RedisStore:
    """A `Store` in Redis 6.2 or later, or what speaks its protocol and runs its Lua scripts."""

    def __init__(self, state: State) -> None:
        self.name = state.shown_url
        self.buckets = state.buckets
        self._calls = Calls(state)
        load = Connection().pack_command("SCRIPT", "LOAD", MARK.text)
        self._aside = Aside(self._calls.connection, b"".join(load))

    async def open(self) -> list[str]:
        told = await self._calls.open()
        self._aside.open()
        if told["replication"].get("role") == "slave":  # R9
            raise StoreError(f"Redis at {self.name} is a replica, which may lag: give the address of its primary")
        policy = told["memory"].get("maxmemory_policy")
        if policy not in (None, "noeviction"):
            raise StoreError(
                f"Redis at {self.name} runs with maxmemory-policy {policy} and would drop rows in silence. Set it with "
                "`redis-cli config set maxmemory-policy noeviction`, and in redis.conf"
            )
        warnings = []
        if policy is None:
            warnings.append(f"Redis at {self.name} does not tell its maxmemory-policy; make sure that it is noeviction")
        if told["persistence"].get("aof_enabled") == 0:
            warnings.append(
                f"Redis at {self.name} keeps no append-only file: after a restart its rows are as old as its last "
                "snapshot, or gone, and are made again from what Kafka retains. Set `appendonly yes`"
            )
        return warnings

    async def assign(self, partition: PartitionId, owner: str, identity: Identity) -> Assigned:
        keys = self._keys(partition)
        arguments = owner.encode(), msgspec.json.encode(identity)
        [reply] = await self._calls.send(bytes, [ASSIGN.pack(keys, arguments)])
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

    async def write(self, partition: PartitionId, writes: Sequence[Write]) -> StoreAnswer:
        replies = await self._calls.send(partial(self._pack, partition), writes)
        return StoreAnswer.FENCED if b"FENCED" in replies else StoreAnswer.OK

    async def load(
        self, partition: PartitionId, owner: str, confirmed: int, series: Sequence[bytes]
    ) -> list[bytes | None]:
        rows: list[bytes | None] = [None] * len(series)
        control, *buckets = self._keys(partition)
        order: list[int] = []
        commands = []
        for start in range(0, len(series), _SERIES_A_CALL):
            groups: dict[int, list[int]] = {}
            for at in range(start, min(start + _SERIES_A_CALL, len(series))):
                groups.setdefault(zlib.crc32(series[at]) % self.buckets, []).append(at)
            ordered = [at for group in groups.values() for at in group]
            order += ordered
            counts = [b"%d" % len(group) for group in groups.values()]
            fence = owner.encode(), b"%d" % confirmed
            packed = [part for at in ordered for part in (header[len(series[at])], series[at])]
            commands.append(LOAD.pack([control, *(buckets[b] for b in groups)], [*fence, *counts], [packed]))
        replies = await self._calls.send(bytes, commands)
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
            now = [waiting.pop() for _ in range(min(_SCANS_AT_ONCE, len(waiting)))]
            commands = [
                SCAN.pack([control, bucket], [*fence, cursor, b"%d" % _FIELDS_A_SCAN]) for bucket, cursor in now
            ]
            for (bucket, _), reply in zip(now, await self._calls.send(bytes, commands), strict=True):
                cursor, pairs = self._unfenced(partition, reply)
                if cursor != b"0":
                    waiting.append((bucket, cursor))
                yield list(zip(pairs[::2], pairs[1::2], strict=True))

    async def probe(self, partition: PartitionId, owner: str, confirmed: int) -> StoreAnswer:
        return (await self.probes([(partition, owner, confirmed)]))[0]

    async def probes(self, owned: Sequence[tuple[PartitionId, str, int]]) -> list[StoreAnswer]:
        outcomes: list[StoreAnswer] = []
        while len(outcomes) < len(owned):  # each call ends with the first that is fenced
            replies = await self._calls.send(self._pack_probe, owned[len(outcomes) :])
            outcomes += [StoreAnswer.FENCED if reply == b"FENCED" else StoreAnswer.OK for reply in replies]
        return outcomes

    async def mark(self, partition: PartitionId, owner: str, reading: str) -> StoreAnswer:
        [reply] = await self._calls.send(self._pack_mark, [(partition, owner, reading)])
        return StoreAnswer.FENCED if reply == b"FENCED" else StoreAnswer.OK

    async def mark_soon(self, words: Sequence[tuple[PartitionId, str, str]]) -> None:
        await heed(self._aside.send(b"".join(map(self._pack_mark, words))))

    async def choose(self, group: str, chosen: Chosen, instead: Mapping[str, str]) -> None:
        replaced = [part.encode() for pair in instead.items() for part in pair]
        files = [part for name, content in chosen.files.items() for part in (name.encode(), content)]
        head = chosen.digest.encode(), chosen.name.encode(), b"%d" % len(instead)
        await self._calls.send(bytes, [CHOOSE.pack([_model_key(group)], [*head, *replaced, *files])])

    async def chosen(self, group: str, *, files: bool) -> Chosen | None:
        [reply] = await self._calls.send(bytes, [CHOSEN.pack([_model_key(group)], [b"%d" % files])])
        held: dict[str, bytes] = {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
        if not held:
            return None

        def under(prefix: str) -> dict[str, bytes]:
            return {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}

        replaced = {digest: name.decode() for digest, name in under("replaced:").items()}
        return Chosen(held["digest"].decode(), held["name"].decode(), replaced, under("file:"))

    async def forget(self, group: str) -> None:
        await self._calls.send(bytes, [DELETE.pack([_model_key(group)], ())])

    async def delete(self, partition: PartitionId) -> int:
        with self._calls.explained():
            kept = await self._calls.client.hget(self._keys(partition)[0], "identity")
        buckets = msgspec.json.decode(kept).get("buckets", self.buckets) if kept else self.buckets
        [rows] = await self._calls.send(bytes, [DELETE.pack(self._keys(partition, buckets), ())])
        return int(rows)

    async def close(self) -> None:
        await self._aside.close()
        await self._calls.close()

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
        crc32, many, head = zlib.crc32, len(buckets), header
        for series, row in zip(write.series, write.rows, strict=True):
            groups[crc32(series) % many] += (head[len(series)], series, head[len(row)], row)
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

    def _unfenced(self, partition: PartitionId, reply: Any) -> Any:
        if reply == b"FENCED":
            raise FencedError(f"{partition}: another worker has taken it, or Redis at {self.name} went back in time")
        return reply


def _model_key(group: str) -> bytes:
    return b"stream_gru:{%s}:model" % group.encode()


def connect(state: State) -> RedisStore:
    """A store that is not connected yet."""
    return RedisStore(state)
