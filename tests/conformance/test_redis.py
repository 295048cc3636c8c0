"""What is particular to Redis: how it must be set up, what it says when it can't, and what survives that."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from redis.asyncio.connection import Connection

from stream_gru import stores
from stream_gru.errors import SettingsError, StoreError, StoreUnavailableError
from stream_gru.stores import Assigned, Identity, PartitionId, Store, StoreAnswer, Write
from stream_gru.stores._redis_scripts import WRITE, header
from stream_gru.tools.embedded import RedisServer, free_port
from tests.support.freezing import freeze

IDENTITY = Identity(topic_id="T-1", partitions=4, buckets=16, model="digest", row="1")
OK, FENCED = StoreAnswer.OK, StoreAnswer.FENCED
pytestmark = pytest.mark.integration


@asynccontextmanager
async def opened(url: str, buckets: int = 16, timeout_s: float = 5.0) -> AsyncIterator[Store]:
    store = stores.connect(url, buckets=buckets, timeout_s=timeout_s)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def refused(url: str) -> StoreError:
    store = stores.connect(url, buckets=16, timeout_s=2)
    with pytest.raises(StoreError) as caught:
        await store.open()
    await store.close()
    return caught.value


async def owned(store: Store, partition: PartitionId) -> str:
    mine = uuid4().hex
    await store.assign(partition, mine, IDENTITY)
    return mine


@contextmanager
def configured(server: RedisServer, **values: str) -> Iterator[redis.Redis]:
    """The server with other settings for a while."""
    with redis.Redis.from_url(server.url) as client:
        names = {name.replace("_", "-"): value for name, value in values.items()}
        before = {name: client.config_get(name)[name] for name in names}
        for name, value in names.items():
            client.config_set(name, value)
        try:
            yield client
        finally:
            for name, value in before.items():
                client.config_set(name, value)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis to be stopped and killed."""
    with RedisServer(tmp_path) as server:
        yield server


async def test_a_redis_that_evicts_is_refused(any_redis: RedisServer) -> None:
    with configured(any_redis, maxmemory_policy="allkeys-lru"):
        error = await refused(any_redis.url)
    assert "maxmemory-policy allkeys-lru" in str(error)
    assert "config set maxmemory-policy noeviction" in str(error)


async def test_a_redis_without_append_only_file_gets_a_warning(own_redis: RedisServer) -> None:
    store = stores.connect(own_redis.url, buckets=16, timeout_s=5)
    assert await store.open() == []
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("appendonly", "no")
    [warning] = await store.open()
    assert "appendonly yes" in warning
    await store.close()


async def test_a_replica_is_refused(own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.replicaof("127.0.0.1", str(free_port()))
        assert "replica" in str(await refused(own_redis.url))


async def test_a_user_who_may_not_ask_for_the_setup_gets_warnings(own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.acl_setuser(
            "worker", enabled=True, passwords=["+pw"], keys=["stream_gru:*"], commands=["+@all", "-info", "-config"]
        )
    store = stores.connect(own_redis.url.replace("//", "//worker:pw@"), buckets=16, timeout_s=5)
    [warning] = await store.open()
    assert "make sure that it is noeviction" in warning
    assert "pw@" not in warning
    mine = await owned(store, PartitionId("g", "t", 0))
    assert await store.write(PartitionId("g", "t", 0), [Write(mine, 1, [b"a"], [b"1"], 1)]) is OK
    await store.close()


async def test_no_server_is_a_passing_error_and_hides_the_password() -> None:
    error = await refused(f"redis://worker:hunter2@127.0.0.1:{free_port()}/0")
    assert isinstance(error, StoreUnavailableError)
    assert "worker:***@127.0.0.1" in str(error)
    assert "hunter2" not in str(error)


async def test_a_wrong_password_is_not_a_passing_error(any_redis: RedisServer) -> None:
    error = await refused(any_redis.url.replace("//", "//worker:hunter2@"))
    assert not isinstance(error, StoreUnavailableError)
    assert "the user or the password" in str(error)
    assert "hunter2" not in str(error)


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"state\.url.*\*\*\*@"):
        stores.connect("redis://u:p@host:port/0", buckets=16, timeout_s=1)


async def test_a_full_redis_takes_nothing_of_a_write_and_the_same_one_later(
    own_redis: RedisServer, partition: PartitionId
) -> None:
    async with opened(own_redis.url) as store:
        mine = await owned(store, partition)
        writes = [Write(mine, n, [b"%d" % n, b"x%d" % n], [b"row"] * 2) for n in range(1, 20)]
        writes.append(Write(mine, 20, offset=5))
        with configured(own_redis, maxmemory="1"):
            for _ in range(3):
                with pytest.raises(StoreUnavailableError, match="OOM"):
                    await store.write(partition, writes)
            assert await store.load(partition, mine, 0, [b"1"]) == [None]
        assert await store.write(partition, writes) is OK
        assert (await store.assign(partition, uuid4().hex, IDENTITY)) == Assigned(5, IDENTITY, 38)


async def answers(reply: Callable[[int], bytes]) -> tuple[asyncio.Server, str]:
    """A server that answers its n-th command with `reply(n)`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        n = 0
        while line := await reader.readline():
            arguments = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                arguments.append((await reader.readexactly(size + 2))[:-2])
            if arguments[0] == b"EVALSHA":
                writer.write(reply(n))
                n += 1
            else:
                writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize(
    ("said", "passing"),
    [
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", True),
        (b"-ERR Error running script (call to f_1): @user_script:25: @user_script: 25: -OOM no memory\r\n", True),
        (b"-MISCONF Errors writing to the AOF file: No space left on device\r\n", True),
        (b"-READONLY You can't write against a read only replica.\r\n", True),
        (b"-LOADING Redis is loading the dataset in memory\r\n", True),
        (b"-BUSY Redis is busy running a script.\r\n", True),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", True),
        (b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", False),
        (b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n", True),
    ],
)
async def test_a_refused_chunk_does_not_make_the_next_ones_fenced(
    partition: PartitionId, said: bytes, passing: bool
) -> None:
    """Chunk 2 is refused; chunk 3 finds the number before its own missing and is told that it is fenced. It is not."""
    server, url = await answers(lambda n: said if n == 1 else (b"+OK\r\n" if n == 0 else b"+FENCED\r\n"))
    store = stores.connect(url, buckets=16, timeout_s=2)
    async with server:
        with pytest.raises(StoreError) as caught:
            await store.write(partition, [Write("o", n) for n in range(1, 5)])
        await store.close()
    assert isinstance(caught.value, StoreUnavailableError) is passing


async def test_scripts_that_the_server_forgot_are_loaded_again(any_redis: RedisServer, partition: PartitionId) -> None:
    async with opened(any_redis.url) as store:
        with redis.Redis.from_url(any_redis.url) as client:
            client.script_flush()
            mine = await owned(store, partition)
            client.script_flush()
            assert await store.write(partition, [Write(mine, n, [b"%d" % n], [b"row"]) for n in range(1, 9)]) is OK
            client.script_flush()
            assert await store.load(partition, mine, 8, [b"8", b"9"]) == [b"row", None]


async def test_a_killed_redis_is_unavailable_and_then_as_before(own_redis: RedisServer, partition: PartitionId) -> None:
    async with opened(own_redis.url, timeout_s=2) as store:
        mine = await owned(store, partition)
        writes = [Write(mine, n, [b"%d" % n], [b"row"]) for n in range(1, 9)]
        assert await store.write(partition, writes[:4]) is OK
        own_redis.kill()
        with pytest.raises(StoreUnavailableError):
            await store.write(partition, writes)
        own_redis.start()
        assert await store.write(partition, writes) is OK
        assert await store.probe(partition, mine, 8) is OK


async def test_a_hung_redis_is_unavailable_and_its_late_answers_are_not_taken_for_others(
    own_redis: RedisServer, partition: PartitionId
) -> None:
    async with opened(own_redis.url, timeout_s=0.3) as store:
        mine = await owned(store, partition)
        await store.write(partition, [Write(mine, 1, [b"a", b"b"], [b"1", b"2"])])
        freeze(own_redis)
        try:
            for call in (
                store.load(partition, mine, 1, [b"a"]),
                store.write(partition, [Write(mine, 2, [b"a"], [b"3"])]),
                store.probe(partition, mine, 1),
            ):
                with pytest.raises(StoreUnavailableError):
                    await call
            cancelled = asyncio.create_task(store.load(partition, mine, 1, [b"a"]))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        finally:
            own_redis.send_signal(signal.SIGCONT)
        assert await store.load(partition, mine, 1, [b"b", b"none"]) == [b"2", None]
        assert await store.write(partition, [Write(mine, 2, [b"a"], [b"3"])]) is OK
        assert await store.load(partition, mine, 2, [b"a"]) == [b"3"]


@pytest.mark.parametrize("fresh", [True, False], ids=["a new connection", "one that is there"])
async def test_a_call_ends_when_it_is_cancelled_at_whatever_turn(
    any_redis: RedisServer, partition: PartitionId, fresh: bool
) -> None:
    """Else the task that called goes on, though the session around it is over, and what waits for it waits for ever."""
    async with opened(any_redis.url) as store:
        mine = await owned(store, partition)
        for turns in range(400):
            if fresh:
                await store._calls._pool.disconnect()  # type: ignore[attr-defined] # connecting has many turns
            call = asyncio.create_task(store.probe(partition, mine, 0))
            for _ in range(turns):
                await asyncio.sleep(0)
            if call.done():
                break
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert call.done()
        assert turns > 2
        assert await store.probe(partition, mine, 0) is OK


async def test_rows_whose_control_fields_are_gone_belong_to_nothing(
    any_redis: RedisServer, partition: PartitionId
) -> None:
    async with opened(any_redis.url) as store:
        mine = await owned(store, partition)
        await store.write(partition, [Write(mine, 1, [b"a", b"b"], [b"1", b"2"], 1)])
        with redis.Redis.from_url(any_redis.url) as client:
            assert client.delete(f"stream_gru:{{{partition}}}:control") == 1
        now = uuid4().hex
        assert await store.assign(partition, now, IDENTITY) == Assigned(None, None)
        assert await store.load(partition, now, 0, [b"a", b"b"]) == [None, None]


async def test_all_keys_of_a_partition_share_one_hash_tag(any_redis: RedisServer, partition: PartitionId) -> None:
    async with opened(any_redis.url, buckets=4) as store, opened(any_redis.url, buckets=2) as other:
        mine = await owned(store, partition)
        series = [b"series-%d" % i for i in range(500)]
        await store.write(partition, [Write(mine, 1, series, series, 1)])
        with redis.Redis.from_url(any_redis.url) as client:
            keys = set(client.keys(f"*{partition.group}*"))
            assert keys == {
                b"stream_gru:{%s}:%s" % (str(partition).encode(), n) for n in (b"control", *b"0 1 2 3".split())
            }
            # the buckets are fixed by the first assignment; 16 were written there, whatever the URL is used with
            assert await other.delete(partition) == len(series)
            assert not client.keys(f"*{partition.group}*")


async def test_control_fields_of_another_version_are_refused(any_redis: RedisServer, partition: PartitionId) -> None:
    async with opened(any_redis.url) as store:
        await owned(store, partition)
        with redis.Redis.from_url(any_redis.url) as client:
            client.hset(f"stream_gru:{{{partition}}}:control", "identity", '{"epoch": 3}')
        with pytest.raises(StoreError, match="another version of stream-gru"):
            await owned(store, partition)


def test_a_packed_command_is_the_one_that_the_client_would_send() -> None:
    rest = [b"series \r\n", b"", b"x" * 5000]
    packed = WRITE.pack([b"k1", b"k2"], [b"owner", b"1", b""], [[part for r in rest for part in (header[len(r)], r)]])
    wanted = Connection().pack_command("EVALSHA", WRITE.sha, 2, "k1", "k2", "owner", 1, "", *rest)
    assert packed == b"".join(wanted)


async def test_a_password_set_where_there_was_none_is_waited_for(redis_server: RedisServer) -> None:
    """Before Redis asks who it is, it refuses a stranger's call for its length."""
    partition = PartitionId(uuid4().hex, "readings", 0)
    series = [b"s%d" % at for at in range(100)]

    async def attempt() -> StoreAnswer:
        while True:
            try:
                return await store.write(partition, [Write(mine, 1, series, series, 5)])
            except StoreUnavailableError as error:
                if "closed by server" not in str(error):  # as are the connections of before
                    raise

    async with opened(redis_server.url) as store:
        mine = await owned(store, partition)
        with configured(redis_server, requirepass="set-just-now") as client:
            client.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(StoreUnavailableError, match=r"wants a password: set state\.password_file"):
                await attempt()
        assert await attempt() is OK
