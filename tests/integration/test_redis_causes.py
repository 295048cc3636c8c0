"""What keeps one out of Redis, each cause told apart, as for Kafka in test_causes.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stream_gru import stores
from stream_gru.errors import StoreError, StoreUnavailableError
from stream_gru.settings import State
from stream_gru.tools.embedded import HOST
from tests.support.certificates import Authority
from tests.support.secured import PASSWORD, SecuredRedis, page

MISTAKES: dict[str, tuple[tuple[str, ...], Callable[[SecuredRedis, Path], State], bool]] = {
    "password": (
        ("refused the user or the password of state.password",),
        lambda s, _: s.state(password="wrong"),
        False,
    ),
    "user": (("refused the user or the password",), lambda s, _: s.state("nobody-here"), False),
    "no password": (
        ("wants a password", "state.password_file"),
        lambda s, _: s.state(username=None, password=None),
        False,
    ),
    "unknown CA": (
        ("certificate", "ssl_cafile"),
        lambda s, folder: s.state(ssl_cafile=Authority(folder, "another CA").file),
        False,
    ),
    "wrong name": (
        ("its certificate is for another name", "'localhost'"),
        lambda s, _: s.state(url=f"rediss://localhost:{s.tls_port}/0"),
        False,
    ),
    "TLS to plain": (("port without TLS", "redis://"), lambda s, _: s.state(url=f"rediss://{HOST}:{s.port}/0"), True),
    "plain to TLS": (("rediss://",), lambda s, _: s.state(url=f"redis://{HOST}:{s.tls_port}/0", ssl_cafile=None), True),
    "nobody listens": (("does not answer",), lambda s, _: s.state(url=f"rediss://{HOST}:1/0"), True),
    "no such host": (("nowhere.invalid",), lambda s, _: s.state(url="rediss://nowhere.invalid:6379/0"), True),
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_redis_says_what_is_wrong_and_where(name: str, secured_store: SecuredRedis, tmp_path: Path) -> None:
    words, set_wrong, may_pass = MISTAKES[name]
    secured_store.allow(*page("redis-acl", "scorer"))
    began = time.monotonic()
    store = stores.from_settings(set_wrong(secured_store, tmp_path))
    try:
        with pytest.raises(StoreError) as told:
            await store.open()
    finally:
        await store.close()
    assert time.monotonic() - began < 10
    for word in ("Redis at redis", *words):
        assert word in str(told.value), told.value
    assert PASSWORD not in str(told.value)
    assert isinstance(told.value, StoreUnavailableError) == may_pass, told.value
