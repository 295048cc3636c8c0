"""Where settings come from, which of them wins, and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from stream_gru import settings
from stream_gru.cli import app, main
from stream_gru.cli.config import flags
from stream_gru.errors import SettingsError
from stream_gru.settings import Kafka, Settings, State, Topics

FILE = """
role = "scorer"
[kafka]
group_id = "from-file"
bootstrap_servers = "file:1"
[topics]
readings = ["a", "b"]
[state]
url = "redis://user:secret@host:1/0"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stream-gru.toml"
    path.write_text(FILE)
    return path


def test_flags_over_environment_over_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_GRU_KAFKA__GROUP_ID", "from-environment")
    monkeypatch.setenv("STREAM_GRU_STATE__BUCKETS", "8")
    loaded = settings.load(file)
    assert (loaded.kafka.group_id, loaded.kafka.bootstrap_servers) == ("from-environment", "file:1")
    assert (loaded.role, loaded.topics.readings, loaded.state.buckets) == ("scorer", ("a", "b"), 8)
    flagged = settings.load(file, {"kafka.group_id": "from-flag", "role": None})
    assert (flagged.kafka.group_id, flagged.role, flagged.state.buckets) == ("from-flag", "scorer", 8)


def test_a_flag_supplies_what_the_others_lack(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"\n')
    monkeypatch.setenv("STREAM_GRU_KAFKA__SASL_USERNAME", "me")
    with pytest.raises(SettingsError, match="also needs sasl_password or sasl_password_file"):
        settings.load(file)
    kafka = settings.load(file, {"kafka.sasl_password": "secret"}).kafka
    assert (kafka.sasl_username, kafka.password()) == ("me", "secret")


def test_a_flag_unsets_what_may_be_unset(file: Path) -> None:
    file.write_text('[kafka]\ngroup_instance_id = "one"\n')
    assert settings.load(file).kafka.group_instance_id == "one"
    assert settings.load(file, {"kafka.group_instance_id": ""}).kafka.group_instance_id is None


@pytest.mark.parametrize("text", ["a,b", " a , b ", '["a", "b"]'])
@pytest.mark.parametrize("form", ["STREAM_GRU_INPUT__VALUES", "STREAM_GRU_INPUT_VALUES", "stream_gru_input__values"])
def test_lists_and_names_of_variables(form: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(form, text)
    assert settings.load().input.values == ("a", "b")


def test_flags_of_the_command_line_are_texts_or_lists() -> None:
    given = flags(["kafka.group_id=7", "state.buckets=8", "input.values=a,b", "input.covariates=['c']", "role='all'"])
    loaded = settings.load(None, given)
    assert (loaded.kafka.group_id, loaded.state.buckets) == ("7", 8)
    assert (loaded.input.values, loaded.input.covariates) == (("a", "b"), ("c",))


def test_no_two_settings_have_one_variable() -> None:
    names = settings.environment(Settings())
    assert len({name.replace("__", "_") for name in names}) == len(names)


def test_what_is_unset_is_unset_in_another_process_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[state]\npassword = "secret"\n')
    for name, value in settings.environment(Settings()).items():
        monkeypatch.setenv(name, value)
    assert settings.load(file) == Settings()


def test_changes_are_validated_as_all_else() -> None:
    changed = settings.changed(Settings(), {"kafka.group_id": "g", "state.url": "redis://:secret@host"})
    assert (changed.kafka.group_id, changed.state.address.password) == ("g", "secret")
    with pytest.raises(SettingsError, match=r"kafka\.bootstrap_servers: .*not host:port"):
        settings.changed(changed, {"kafka.bootstrap_servers": "a:b"})


def test_the_environment_of_settings_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(chunk_rows=7, url=SecretStr("rediss://host"), username="me", password=SecretStr("p,w"))
    chosen = Settings(kafka=Kafka(group_id="g"), topics=Topics(readings=("x", "y")), state=state)
    for name, value in settings.environment(chosen).items():
        monkeypatch.setenv(name, value)
    assert settings.load() == chosen


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"kafka.group_id": "no spaces"}, "kafka.group_id: "),
        ({"kafka.group": "x"}, "kafka.group: there is no such setting"),
        ({"state.capacity": 0}, "state.capacity: Input should be greater than or equal to 1, got 0"),
        ({"topics.alerts": "readings"}, "used twice: readings"),
        ({"kafka.security_protocol": "SASL_SSL"}, "also needs sasl_mechanism, sasl_username, sasl_password"),
        ({"kafka.rebalance_timeout_s": 40}, "must be less than request_timeout_s"),
        ({"input.values": ("v", "v")}, "a field is named twice"),
    ],
)
def test_what_is_wrong_is_said(flags: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match="the configuration is wrong") as caught:
        settings.load(None, flags)
    assert said in str(caught.value)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_GRU_STATE__CAPACITY", "lots")
    with pytest.raises(SettingsError, match="environment variable STREAM_GRU_STATE__CAPACITY"):
        settings.load()


def test_broken_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        settings.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("kafka = [")
    with pytest.raises(SettingsError, match="is not valid TOML"):
        settings.load(tmp_path / "bad.toml")


def test_show_masks_secrets_and_can_be_read_back(file: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["config", "show", "--config", str(file), "--set", "kafka.group_id=flag"])
    assert shown.exit_code == 0
    assert "secret" not in shown.output
    assert "redis://user:***@host:1/0" in shown.output
    (tmp_path / "again.toml").write_text(shown.output)
    assert settings.load(tmp_path / "again.toml").kafka.group_id == "flag"
    as_json = CliRunner().invoke(app, ["config", "show", "--config", str(file), "--json"])
    assert json.loads(as_json.output)["topics"]["readings"] == ["a", "b"]


def test_check_is_one_message_and_code_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["stream-gru", "config", "check", "--set", "state.url=ftp://x", "-s", "role=boss"])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr()
    assert "role: " in said.err
    assert "Traceback" not in said.err
