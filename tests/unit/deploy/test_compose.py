"""The image and the stack, as far as they can be checked without an engine to run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from stream_gru.cli import app
from stream_gru.metrics import Health, Metrics, StatusServer
from stream_gru.settings import load
from tests.support import deploy_files

SERVICES = deploy_files.services()
DOCKERFILE = (deploy_files.ROOT / "Dockerfile").read_text("utf-8")
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")
OURS = [name for name, service in SERVICES.items() if "build" in service]


def schema_errors(file: Path) -> str:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def instructions(name: str) -> list[str]:
    """What follows an instruction of the Dockerfile, lines joined."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return re.findall(rf"^{name} (.+)$", joined, flags=re.MULTILINE)


def one_shot(name: str) -> bool:
    waits = [service.get("depends_on", {}).get(name, {}) for service in SERVICES.values()]
    return any(wait.get("condition") == "service_completed_successfully" for wait in waits)


def test_the_stack_follows_the_compose_specification() -> None:
    assert schema_errors(deploy_files.ROOT / "docker-compose.yml") == ""


def test_the_specification_refuses_a_mistake(tmp_path: Path) -> None:
    wrong = (deploy_files.ROOT / "docker-compose.yml").read_text("utf-8").replace("mem_limit: 1g", "mem_limits: 1g")
    (tmp_path / "compose.yml").write_text(wrong, "utf-8")
    assert "mem_limits" in schema_errors(tmp_path / "compose.yml")


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in OURS])
def test_an_image_is_pinned(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_or_done_at_once(name: str) -> None:
    service = SERVICES[name]
    if one_shot(name):
        assert service["healthcheck"] == {"disable": True}
        assert service["restart"] == "no"
    else:
        of_the_image = name in OURS and service["command"] == ["worker"]
        assert of_the_image or service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"


def test_services_start_in_an_order_that_exists() -> None:
    order = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    assert set(TopologicalSorter(order).static_order()) == set(SERVICES)
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            assert wait["condition"] == ("service_completed_successfully" if one_shot(name) else "service_healthy")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_and_open_to_this_machine_alone(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["logging"]["options"]["max-size"]
    assert "container_name" not in service
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


def test_the_worker_can_be_scaled() -> None:
    assert "ports" not in SERVICES["worker"]


def test_published_ports_differ() -> None:
    ports = [port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(set(ports)) == len(ports)


def test_everything_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (
                (deploy_files.ROOT / source).exists()
                if source[0] == "."
                else source in deploy_files.compose()["volumes"]
            )


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = SERVICES[name]["environment"]
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    settings = load()
    for variable, value in environment.items():
        found: Any = settings
        for part in variable.removeprefix("STREAM_GRU_").lower().split("__"):
            found = getattr(found, part)
        assert str(getattr(found, "get_secret_value", lambda f=found: f)()) == value
    assert settings.metrics.host == "0.0.0.0"  # noqa: S104 -- within the container, where Prometheus asks
    assert settings.kafka.bootstrap_servers in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert urlsplit(settings.state.url.get_secret_value()).hostname in SERVICES


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_that_the_program_takes(name: str) -> None:
    command = SERVICES[name]["command"]
    # Names are checked before help is given.
    assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0
    assert CliRunner().invoke(app, [*command, "--no-such-option", "--help"]).exit_code == 2


def test_those_who_must_find_each_other_do() -> None:
    workers, _, alertmanager = deploy_files.yaml_file("deploy/prometheus/prometheus.yml")["scrape_configs"]
    (found,) = workers["dns_sd_configs"]
    assert found["names"] == ["worker"]
    assert str(found["port"]) == SERVICES["worker"]["environment"]["STREAM_GRU_METRICS__PORT"]
    assert SERVICES["worker"]["expose"] == [str(found["port"])]
    assert {f'job="{workers["job_name"]}"' in rule["expr"] for rule in deploy_files.rules("alert")} == {True, False}

    (receiver,) = deploy_files.yaml_file("deploy/alertmanager/alertmanager.yml")["receivers"]
    sources = deploy_files.yaml_file("deploy/grafana/provisioning/datasources/datasources.yml")["datasources"]
    targets = [target for config in alertmanager["static_configs"] for target in config["targets"]]
    urls = [config["url"] for config in receiver["webhook_configs"]] + [source["url"] for source in sources]
    hosts = [urlsplit(url).hostname for url in urls] + [target.split(":")[0] for target in targets]
    assert set(hosts) <= set(SERVICES)


def test_redis_keeps_state_and_never_evicts_it() -> None:
    command = SERVICES["redis"]["command"]
    said = dict(zip(command[1::2], command[2::2], strict=True))
    assert said["--appendonly"] == "yes"
    assert said["--appendfsync"] == "everysec"
    assert said["--maxmemory-policy"] == "noeviction"


def test_the_image_is_pinned_and_small_in_rights() -> None:
    (base,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert PINNED.fullmatch(f"python:{base}")
    assert f"python:{base}" == SERVICES["alert-log"]["image"]  # one image less to pull
    python = ".".join(base.split(".")[:2])
    assert f"Programming Language :: Python :: {python}" in deploy_files.project()["project"]["classifiers"]
    assert {line.split()[0] for line in instructions("FROM")} == {"python:${PYTHON}"}
    assert len(instructions("FROM")) == 2
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions("USER")[-1])
    owner = instructions("USER")[-1].split(":")
    assert f"uid={owner[0]},gid={owner[1]}" in " ".join(SERVICES["worker"]["tmpfs"])


def test_the_image_starts_the_program_under_an_init_without_a_shell() -> None:
    assert json.loads(instructions("ENTRYPOINT")[-1]) == ["tini", "--", "stream-gru"]
    assert json.loads(instructions("CMD")[-1]) == SERVICES["worker"]["command"]
    assert "stream-gru" in deploy_files.project()["project"]["scripts"]


def test_the_image_is_built_from_what_is_there_and_not_ignored() -> None:
    ignore = (deploy_files.ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignore
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert set(copied) == {line.removeprefix("!") for line in ignore if line.startswith("!")}
    for name in copied:
        assert (deploy_files.ROOT / name).exists(), name


@pytest.mark.parametrize("stalled", [None, "no turn of the source task for 12 s"])
def test_the_health_check_of_the_image_tells_a_stalled_worker(stalled: str | None) -> None:
    (check,) = instructions("HEALTHCHECK")
    _python, *arguments = json.loads(check.partition("CMD ")[2])
    server = StatusServer("127.0.0.1", 0, Metrics(), Health(parts={"kafka": "is out of reach"}, stalled=stalled))
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "STREAM_GRU_METRICS__PORT": str(server.port)},
            capture_output=True,
            check=False,
            timeout=30,
        )
    finally:
        server.close()
    assert (done.returncode == 0) == (stalled is None), done.stderr.decode()


@pytest.mark.parametrize("file", sorted(deploy_files.DEPLOY.rglob("*.yml")), ids=lambda file: file.name)
def test_a_yaml_file_says_nothing_twice(file: Path) -> None:
    # PyYAML takes the last of two equal keys in silence.
    def keys(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            found = [key.value for key, _ in node.value]
            assert len(set(found)) == len(found), f"{file}: {found}"
            for _, value in node.value:
                keys(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                keys(value)

    for document in yaml.compose_all(file.read_text("utf-8"), yaml.SafeLoader):
        keys(document)
