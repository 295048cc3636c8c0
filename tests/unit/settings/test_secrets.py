"""No secret is shown, wherever it stands; files of secrets are read anew each time."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner

from stream_gru import settings
from stream_gru.cli import app
from stream_gru.errors import CredentialsError, SettingsError
from stream_gru.settings import Kafka, Settings, State, mask_url, secrets
from stream_gru.tools.stage import OPEN_KAFKA, OPEN_STORE

PASSWORD = "hunter2"  # noqa: S105 - looked for in all that is shown


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://me:hunter2@host:6379/0", "redis://me:***@host:6379/0"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("redis://hunter2@host", "redis://***@host"),
        ("redis://me:hunt@er2@host/1", "redis://me:***@host/1"),
        ("rediss://[::1]:6379/0?password=hunter2", "rediss://[::1]:6379/0?password=***"),
        ("redis://host/0?username=me&password=hunter2", "redis://host/0?username=me&password=***"),
        ("redis://host/0?hunter2", "redis://host/0?***"),
        ("redis://me:hunter2#@host", "redis://***"),
        ("redis://host/0#hunter2", "redis://host/0#***"),
        ("redis://me:hunter2", "redis://***"),
        ("hunter2", "***"),
        ("", "***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@given(
    st.text(min_size=1), st.sampled_from(["redis://me:{}@host:1/0", "redis://:{}@host", "redis://host/0?password={}"])
)
def test_any_encoded_password_is_read_and_not_shown(password: str, form: str) -> None:
    url = form.format(quote(password, safe=""))
    assert secrets.split_url(url).password == password
    assert mask_url(url) == form.format("***")


@given(
    st.lists(st.sampled_from(["zq1x", "vv9k", "@", "/", "?", "#", ":", "&", "=", " ", "%"]), min_size=1).map("".join),
    st.sampled_from(
        ["redis://me:{}@h/0", "redis://:{}@h", "redis://h/0?password={}", "redis://h?username=u&password={}"]
    ),
)
def test_a_password_as_it_is_is_read_whole_or_refused_and_never_shown(password: str, form: str) -> None:
    url = form.format(password)
    said = mask_url(url)
    try:
        found = secrets.split_url(url).password
    except ValueError as error:
        said += str(error)
    else:
        assert found == password or "%" in password
    assert "zq1x" not in said
    assert "vv9k" not in said


def test_an_unencoded_at_is_accepted_where_it_can_be_told() -> None:
    address = State(url=SecretStr("redis://me:p@ss@host:7000/3")).address
    assert (address.username, address.password, address.host, address.port, address.database) == (
        "me", "p@ss", "host", 7000, 3,
    )  # fmt: skip


@pytest.fixture
def everywhere(tmp_path: Path) -> Settings:
    """Settings with a secret in each place that takes one."""
    (tmp_path / "file").write_text(PASSWORD)
    login = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "me"}
    return Settings.model_validate(
        {
            "kafka": {**login, "sasl_password": PASSWORD, "ssl_key_password": PASSWORD},
            "state": {"url": "rediss://host/0", "password": PASSWORD, "ssl_key_password": PASSWORD},
        }
    )


def test_nothing_that_is_printed_of_settings_holds_a_secret(everywhere: Settings) -> None:
    in_url = State(url=SecretStr(f"redis://host/0?password={PASSWORD}"))
    tree = settings.dump(everywhere.model_copy(update={"state": in_url}))
    for shown in (
        repr(everywhere),
        str(everywhere),
        repr(in_url),
        json.dumps(tree),
        json.dumps(settings.dump(everywhere)),
    ):
        assert PASSWORD not in shown
    assert tree["state"]["url"] == "redis://host/0?password=***"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_show_masks_them(form: list[str], caplog: pytest.LogCaptureFixture) -> None:
    flags = ["state.url=redis://me:hunter2@host/0", "kafka.sasl_password=hunter2", "kafka.ssl_key_password=hunter2"]
    with caplog.at_level(logging.DEBUG):
        shown = CliRunner().invoke(app, ["config", "show", *form, *(p for flag in flags for p in ("--set", flag))])
    assert shown.exit_code == 0
    assert PASSWORD not in shown.output + caplog.text
    assert "redis://me:***@host/0" in shown.output


def test_servers_that_are_started_here_are_given_no_secrets(everywhere: Settings) -> None:
    alone = settings.changed(everywhere, {"state.url": "redis://127.0.0.1:1/0", **OPEN_KAFKA, **OPEN_STORE})
    assert (alone.kafka.password(), alone.kafka.key_password(), alone.state.login()) == (None, None, (None, None))
    assert "hunter2" not in " ".join(settings.environment(alone).values())


def test_what_pydantic_says_holds_none() -> None:
    with pytest.raises(ValidationError) as caught:
        Kafka(security_protocol="SASL_SSL", sasl_password=SecretStr(PASSWORD))
    assert PASSWORD not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        Kafka.model_validate({"sasl_pasword": PASSWORD})
    assert PASSWORD not in str(caught.value)


def test_files_are_read_each_time_without_their_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("one\n")
    kafka = Kafka(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="me", sasl_password_file=file
    )
    state = State(url=SecretStr("redis://me@host"), password_file=file)
    assert (kafka.password(), state.login()) == ("one", ("me", "one"))
    file.write_text(" two words \r\n")
    assert (kafka.password(), state.login()) == (" two words ", ("me", " two words "))
    file.unlink()
    with pytest.raises(CredentialsError, match=rf"kafka\.sasl_password_file: {file} can't be read: No such file"):
        kafka.password()
    with pytest.raises(CredentialsError, match=r"state\.password_file"):
        state.login()


def test_a_file_without_a_secret_is_refused(tmp_path: Path) -> None:
    for content, said in ((b"\n", "is empty"), (b"\xff", "is not UTF-8"), (b"x" * 70_000, "longer than")):
        (tmp_path / "password").write_bytes(content)
        with pytest.raises(SettingsError, match=said):
            State(password_file=tmp_path / "password").login()


def test_what_is_shown_of_a_wrong_value() -> None:
    assert secrets.shown("lots") == "'lots'"
    assert secrets.shown(["a", 1]) == "['a', 1]"
    assert secrets.shown("me:hunter2@host") == "'***@host'"
    assert secrets.shown("redis://:hunter2@host") == "'***@host'"
    assert secrets.shown("-----BEGIN KEY-----\nx") is None
    assert secrets.shown({"password": PASSWORD}) is None
    assert len(secrets.shown("x" * 1000) or "") < 200
