"""Who we are to Redis: passwords that are rotated, certificates, and each refusal in words, on a real server."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from stream_gru import stores
from stream_gru.errors import CredentialsError, StoreError, StoreUnavailableError
from stream_gru.settings import State
from stream_gru.stores import Store
from stream_gru.tools.embedded import HOST
from tests.support.certificates import Authority
from tests.support.secured import PASSWORD, SecuredRedis, secured_redis

HOUR = datetime.timedelta(hours=1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRedis]:
    with secured_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running: SecuredRedis) -> Iterator[SecuredRedis]:
    """The server with a user `scorer` that may do everything; its setup is put back."""
    with running.admin() as client:
        _set_password(running, PASSWORD)
        before = {name: client.config_get(name)[name] for name in ("tls-cert-file", "tls-key-file", "tls-auth-clients")}
        yield running
        client.config_set("tls-auth-clients", before.pop("tls-auth-clients"))
        client.execute_command(
            "CONFIG", "SET", *(part for pair in before.items() for part in pair)
        )  # both: they must fit


@asynccontextmanager
async def opened(state: State) -> AsyncIterator[Store]:
    store = stores.from_settings(state)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def again(store: Store) -> None:
    """Open it anew; a connection that the server has closed is only noticed when it is used."""
    try:
        await store.open()
    except StoreUnavailableError as error:
        if "closed" not in str(error):
            raise
        await store.open()


async def refusal(state: State) -> StoreError:
    """Why a first connection does not come about."""
    with pytest.raises(StoreError) as caught:
        async with opened(state):
            pass
    assert PASSWORD not in str(caught.value)
    return caught.value


async def test_a_rotated_password_is_read_again(server: SecuredRedis, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    async with opened(server.state(password=None, password_file=file)) as store:
        _set_password(server, "new-one")  # and whoever was connected has to come again
        with pytest.raises(
            StoreUnavailableError, match=f"refused the user or the password of state.password_file, {file}"
        ):
            await again(store)
        file.unlink()  # in the middle of being replaced
        with pytest.raises(StoreUnavailableError, match=f"state.password_file: {file} can't be read"):
            await again(store)
        file.write_text("new-one")
        await again(store)


async def test_a_wrong_password_may_pass_only_once_it_was_right_or_where_it_may_be_rotated(
    server: SecuredRedis, tmp_path: Path
) -> None:
    wrong = await refusal(server.state(password="other"))
    assert not isinstance(wrong, StoreUnavailableError)
    assert "refused the user or the password of state.password" in str(wrong)
    (tmp_path / "password").write_text("other")
    rotating = await refusal(server.state(password=None, password_file=tmp_path / "password"))
    assert isinstance(rotating, StoreUnavailableError)
    async with opened(server.state()) as store:
        _set_password(server, "new-one")
        with pytest.raises(StoreUnavailableError, match="refused the user or the password"):
            await again(store)


async def test_no_password_at_all(server: SecuredRedis) -> None:
    error = await refusal(State(url=SecretStr(f"redis://{HOST}:{server.port}")))
    assert not isinstance(error, StoreUnavailableError)
    assert "wants a password: set state.password_file" in str(error)


def test_a_file_that_is_not_there_when_it_begins_is_a_mistake(server: SecuredRedis, tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"state\.password_file: .*gone can't be read"):
        stores.from_settings(server.state(password=None, password_file=tmp_path / "gone"))
    with pytest.raises(CredentialsError, match=r"state\.ssl_cafile: there is no file .*gone"):
        stores.from_settings(server.state(ssl_cafile=tmp_path / "gone"))


async def test_credentials_in_the_url_still_serve(server: SecuredRedis) -> None:
    for url in (f"rediss://scorer:{PASSWORD}@{{}}/0", f"rediss://{{}}/0?username=scorer&password={PASSWORD}"):
        given = SecretStr(url.format(f"{HOST}:{server.tls_port}"))
        async with opened(State(url=given, ssl_cafile=server.authority.file)):
            pass


async def test_an_unknown_authority_an_expired_certificate_and_another_name_are_told_apart(
    server: SecuredRedis, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "other CA")
    said = str(await refusal(server.state(ssl_cafile=other.file)))
    assert "its certificate is signed by a CA that is not in state.ssl_cafile" in said
    _serve_with(server, server.authority.issue("expired", HOST, left=-HOUR))
    assert "its certificate has expired" in str(await refusal(server.state()))
    _serve_with(server, server.authority.issue("named", "redis.example"))
    error = await refusal(server.state())
    assert "its certificate is for another name" in str(error)
    assert not isinstance(error, StoreUnavailableError)


async def test_certificates_are_read_again(server: SecuredRedis, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(server.authority.file.read_bytes())
    async with opened(server.state(ssl_cafile=trusted)) as store:
        new = Authority(tmp_path / "new", "new CA")
        _serve_with(server, new.issue("redis", HOST))
        with pytest.raises(StoreUnavailableError, match=r"a CA that is not in state\.ssl_cafile"):
            await again(store)
        trusted.write_bytes(new.file.read_bytes())
        await again(store)


async def test_a_server_that_wants_a_certificate(server: SecuredRedis) -> None:
    with server.admin() as client:
        client.config_set("tls-auth-clients", "yes")
    said = str(await refusal(server.state()))  # an alert, or a reset if that comes first
    assert "asks for a client certificate" in said or "does it ask for a certificate" in said
    async with opened(server.state(ssl_certfile=server.authority.issue("scorer"))):
        pass


async def test_tls_where_there_is_none(server: SecuredRedis) -> None:
    error = await refusal(server.state(url=f"rediss://{HOST}:{server.port}/0", request_timeout_s=1))
    assert "if it is a port without TLS, write redis:// in state.url" in str(error)


async def test_no_tls_where_it_is_wanted(server: SecuredRedis) -> None:
    error = await refusal(State(url=SecretStr(f"redis://scorer:{PASSWORD}@{HOST}:{server.tls_port}/0")))
    assert "if it is a port for TLS, write rediss:// in state.url" in str(error)


async def test_a_missing_right_is_waited_for(server: SecuredRedis) -> None:
    with server.admin() as client:
        client.execute_command("ACL", "SETUSER", "scorer", "-script|load")
    error = await refusal(server.state())
    assert isinstance(error, StoreUnavailableError)
    assert "its user lacks a right" in str(error)


def _set_password(server: SecuredRedis, password: str) -> None:
    """Of `scorer`, who may do everything; whoever is connected as it is not any more."""
    with server.admin() as client:
        client.execute_command("ACL", "SETUSER", "scorer", "reset", "on", f">{password}", "~*", "&*", "+@all")
        client.execute_command("CLIENT", "KILL", "USER", "scorer")


def _serve_with(server: SecuredRedis, certificate: Path) -> None:
    """From now on; whoever is connected has to come again."""
    with server.admin() as client:
        client.execute_command("CONFIG", "SET", "tls-cert-file", str(certificate), "tls-key-file", str(certificate))
        client.execute_command("CLIENT", "KILL", "USER", "scorer")
