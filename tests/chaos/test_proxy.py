"""The proxy itself, before an echo."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.chaos.proxy import HOST, Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says what it is told; it ends its side when the client does."""
    with socket.create_server((HOST, 0)) as listener:

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(1000):
                        connection.sendall(data)
                except OSError:
                    pass

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo) as made:
        yield made


Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Connect]:
    opened: list[socket.socket] = []

    def to() -> socket.socket:
        opened.append(socket.create_connection((HOST, proxy.port), timeout=5))
        return opened[-1]

    yield to
    for connection in opened:
        connection.close()


def says(connection: socket.socket, text: bytes, within_s: float = 5.0) -> bytes:
    connection.settimeout(within_s)
    connection.sendall(text)
    return connection.recv(1000)


def test_it_passes_everything_on(connect: Connect) -> None:
    one, other = connect(), connect()
    assert says(one, b"a") == b"a"
    assert says(other, b"b") == b"b"
    one.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        one.recv(1)


def test_a_black_hole_answers_nothing_and_gives_it_back(proxy: Proxy, connect: Connect) -> None:
    old = connect()
    assert says(old, b"a") == b"a"
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        says(old, b"b", 0.2)
    new = connect()
    with pytest.raises(TimeoutError):
        says(new, b"c", 0.2)
    proxy.heal()
    old.settimeout(5)
    assert old.recv(1000) == b"b"
    assert says(connect(), b"d") == b"d"


def test_what_was_swallowed_is_gone_and_so_is_its_connection(proxy: Proxy, connect: Connect) -> None:
    maimed, idle = connect(), connect()
    assert says(idle, b"a") == b"a"
    proxy.swallow()
    with pytest.raises(TimeoutError):
        says(maimed, b"b", 0.2)
    proxy.heal()
    maimed.settimeout(5)
    with pytest.raises(ConnectionResetError):
        maimed.recv(1000)
    assert says(idle, b"c") == b"c"


def test_a_refusal_is_a_reset(proxy: Proxy, connect: Connect) -> None:
    old = connect()
    assert says(old, b"a") == b"a"
    proxy.refuse()
    with pytest.raises(ConnectionError):
        says(old, b"b")
    with pytest.raises(ConnectionError):
        says(connect(), b"c")
    proxy.heal()
    assert says(connect(), b"d") == b"d"


def test_a_delay_is_one_each_way(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    assert says(connection, b"a") == b"a"
    proxy.delay(0.1)
    began = time.monotonic()
    assert says(connection, b"b") == b"b"
    assert time.monotonic() - began >= 0.2


def test_a_half_close_ends_one_side(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    assert says(connection, b"a") == b"a"
    proxy.half_close()
    assert connection.recv(1) == b""
    connection.sendall(b"b")
    assert says(connect(), b"c") == b"c"


def test_some_replies_are_lost_with_their_connections(proxy: Proxy, connect: Connect) -> None:
    proxy.lose_replies(0.5, seed=1)
    answered = 0
    for _ in range(40):
        with suppress(ConnectionError):
            answered += says(connect(), b"a") == b"a"
    assert 8 < answered < 32


def test_a_request_that_is_held_back_arrives_after_its_client_has_gone(proxy: Proxy, connect: Connect) -> None:
    proxy.hold()
    late = connect()
    with pytest.raises(TimeoutError):
        says(late, b"late", 0.1)
    proxy.heal()
    assert says(connect(), b"a") == b"a"
    assert proxy.held == 4
    late.close()
    proxy.release()
    assert proxy.held == 0


def test_a_server_that_is_not_there_is_a_reset(connect: Connect, proxy: Proxy) -> None:
    with socket.create_server((HOST, 0)) as listener:
        proxy.upstream = listener.getsockname()[1]
    with pytest.raises(ConnectionError):
        says(connect(), b"a")


def test_the_port_stays_when_the_proxy_is_made_anew(echo: int) -> None:
    before = set(threading.enumerate())  # other tests of this process may have theirs
    with Proxy(echo) as first:
        port = first.port
    with Proxy(echo, port), socket.create_connection((HOST, port), timeout=5) as connection:
        assert says(connection, b"a") == b"a"
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "proxy"]
