"""Prometheus, Alertmanager and Grafana: the files say what they should, of metrics that exist."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from itertools import combinations
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import generate_latest

from stream_gru.engine.gates import Distribution
from stream_gru.metrics import Metrics
from stream_gru.records.dead_letters import Reason
from tests.support import deploy_files

FIRING = re.compile(r'alertname="(\w+)"')


@pytest.fixture(scope="module")
def page() -> str:
    """What a worker serves as /metrics once every labelled metric has been counted."""
    metrics = Metrics()
    metrics.levels.labels("normal")
    metrics.dead_letters.labels(Reason.TOMBSTONE)
    metrics.lag.labels("readings", "0")
    metrics.writer_errors.labels("store")
    metrics.model.info({"name": "default", "digest": "0"})
    metrics.gates.show({"update": Distribution((0.5, 1.0), [1, 2], 1.5)})
    return generate_latest(metrics.registry).decode()


def test_every_metric_that_a_rule_or_a_panel_names_exists(page: str) -> None:
    used = deploy_files.metric_names_used()
    if sys.platform != "linux":
        used = {name for name in used if not name.startswith("process_")}  # read from /proc
    assert len(used) > 20
    assert used <= deploy_files.metric_names_exposed(page)


def test_a_metric_without_a_sample_is_still_known_by_its_name() -> None:
    exposed = deploy_files.metric_names_exposed(generate_latest(Metrics().registry).decode())
    assert {"stream_gru_dead_letters_total", "stream_gru_latency_seconds_bucket", "stream_gru_reader_lag"} <= exposed


def test_every_label_that_an_expression_names_exists(page: str) -> None:
    of_prometheus = {"job", "instance", "le", "alertname", "alertstate"}
    recorded = {label for rule in deploy_files.rules("record") for label in rule.get("labels", {})}
    known = deploy_files.labels_exposed(page) | of_prometheus | recorded
    for where, expression in deploy_files.expressions():
        assert deploy_files.names(expression)[1] <= known, where


@pytest.mark.parametrize(
    ("expression", "metrics", "labels"),
    [
        ('sum by (job) (rate(a_total{x="y"}[5m])) / on (job) group_left (z) b', {"a_total", "b"}, {"job", "x", "z"}),
        ("max_over_time(a:b:sum[1h]) > 0 or (c unless c offset 5m)", {"a:b:sum", "c"}, set()),
        ('rate(a_total{job=~"$job"}[$__rate_interval])', {"a_total"}, {"job"}),
        ("min_over_time(rate(a_total[1m])[1h:1m])", {"a_total"}, set()),
    ],
)
def test_names_are_read_out_of_any_expression(expression: str, metrics: set[str], labels: set[str]) -> None:
    assert deploy_files.names(expression) == (metrics, labels)


def test_prometheus_accepts_its_configuration_and_the_rules() -> None:
    deploy_files.run_tool("promtool", "check", "config", "deploy/prometheus/prometheus.yml")
    deploy_files.run_tool("promtool", "check", "rules", *deploy_files.RULE_FILES)


@pytest.mark.slow
def test_the_rules_do_what_their_unit_tests_say() -> None:
    said = deploy_files.run_tool("promtool", "test", "rules", *deploy_files.RULE_TEST_FILES)
    assert said.count("SUCCESS") == len(deploy_files.RULE_TEST_FILES)


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: set[str] = set()
    quiet: set[str] = set()
    for check in deploy_files.rule_tests():
        fires.update(name for sample in check["exp_samples"] for name in FIRING.findall(sample["labels"]))
        if not check["exp_samples"]:
            quiet.update(FIRING.findall(check["expr"]))
            if check["expr"] == 'ALERTS{alertstate="firing"}':
                quiet |= {rule["alert"] for rule in deploy_files.rules("alert")}
    alerts = [rule["alert"] for rule in deploy_files.rules("alert")]
    assert len(alerts) == len(set(alerts))
    assert set(alerts) == fires
    assert set(alerts) <= quiet


def test_every_recorded_series_has_a_test() -> None:
    tested = set().union(*(deploy_files.names(check["expr"])[0] for check in deploy_files.rule_tests()))
    assert {rule["record"] for rule in deploy_files.rules("record")} - tested == {
        "job_topic_partition:stream_gru_reader_lag:max"  # job:stream_gru_reader_lag:sum is its sum
    }


@pytest.mark.parametrize("rule", deploy_files.rules("alert"), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("StreamGru")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    assert len(notes["summary"]) < 80
    # Labels in its text are labels that it has when it fires; any other would be left empty in silence.
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(notes.values())))
    samples = [sample["labels"] for check in deploy_files.rule_tests() for sample in check["exp_samples"]]
    fired = next(labels for labels in samples if f'alertname="{rule["alert"]}"' in labels)
    assert named <= set(re.findall(r'(\w+)="', fired))


def test_alertmanager_accepts_its_configuration_and_routes_to_the_log() -> None:
    file = "deploy/alertmanager/alertmanager.yml"
    deploy_files.run_tool("amtool", "check-config", file)
    for severity in ("critical", "warning"):
        to = deploy_files.run_tool(
            "amtool", "config", "routes", "test", f"--config.file={file}", f"severity={severity}"
        )
        assert to.strip() == "log"


def test_inhibit_rules_name_alerts_that_exist() -> None:
    alerts = {rule["alert"] for rule in deploy_files.rules("alert")}
    for rule in deploy_files.yaml_file("deploy/alertmanager/alertmanager.yml")["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            _, pattern = re.split(r"\s*[!=]~?=?\s*", matcher, maxsplit=1)
            pattern = pattern.strip('"')
            prefix, _, several = pattern.partition("(")
            for name in several.rstrip(")").split("|"):
                assert any(re.fullmatch(prefix + name, alert) for alert in alerts), matcher


@pytest.fixture(scope="module")
def log_alerts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("log_alerts", deploy_files.DEPLOY / "alertmanager/log_alerts.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def post(log_alerts: ModuleType) -> Iterator[Callable[[bytes], int]]:
    """Send a body to the receiver; the status that it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), log_alerts.Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def send(body: bytes) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{server.server_address[1]}/", body)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 -- our own
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    yield send
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_receiver_writes_a_line_for_each_alert(
    post: Callable[[bytes], int], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"alertname": "StreamGruStateLost", "severity": "critical"}
    notes = {"summary": "State was lost", "description": "Two\nlines.", "runbook": "Look at Redis."}
    firing = {"status": "firing", "startsAt": "2026-01-02T03:04:05Z", "labels": labels, "annotations": notes}
    resolved = {**firing, "status": "resolved", "endsAt": "2026-01-02T04:00:00Z"}
    assert post(json.dumps({"version": "4", "alerts": [firing, resolved]}).encode()) == 200
    assert capsys.readouterr().out.splitlines() == [
        "2026-01-02T03:04:05Z firing critical StreamGruStateLost: State was lost Two lines. | Look at Redis.",
        "2026-01-02T04:00:00Z resolved critical StreamGruStateLost: State was lost Two lines.",
    ]


@pytest.mark.parametrize("body", [b"", b"not JSON", b"[]", b"{}", b'{"alerts": [{}]}', b'{"alerts": [1]}'])
def test_the_receiver_refuses_what_is_no_notification(
    post: Callable[[bytes], int], capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    assert post(body) == 400
    assert capsys.readouterr().out == ""


def test_every_file_for_grafana_is_found_by_its_provisioning() -> None:
    assert deploy_files.DASHBOARDS
    (provider,) = deploy_files.yaml_file("deploy/grafana/provisioning/dashboards/dashboards.yml")["providers"]
    mounts = deploy_files.services()["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in mounts
    home = deploy_files.services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in {f"{provider['options']['path']}/{name}" for name in deploy_files.dashboards()}


@pytest.mark.parametrize("name", deploy_files.dashboards())
def test_a_dashboard_is_whole(name: str) -> None:
    dashboard = deploy_files.dashboards()[name]
    panels = dashboard["panels"]
    sources = deploy_files.yaml_file("deploy/grafana/provisioning/datasources/datasources.yml")["datasources"]
    provisioned = {(source["type"], source["uid"]) for source in sources}

    assert dashboard["uid"] == name.removesuffix(".json")
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for part in [*panels, *dashboard["annotations"]["list"], *dashboard["templating"]["list"]]:
        if part.get("type") != "row":
            assert (part["datasource"]["type"], part["datasource"]["uid"]) in provisioned, part
    for panel in panels:
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references, panel["title"]
        assert len(set(references)) == len(references), panel["title"]


@pytest.mark.parametrize("name", deploy_files.dashboards())
def test_panels_lie_side_by_side(name: str) -> None:
    def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

    panels = deploy_files.dashboards()[name]["panels"]
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
    for one, other in combinations(panels, 2):
        assert not cells(one) & cells(other), f"{one['title']} lies over {other['title']}"


@pytest.mark.parametrize("name", deploy_files.dashboards())
def test_a_dashboard_uses_each_of_its_variables_and_no_other(name: str) -> None:
    dashboard = deploy_files.dashboards()[name]
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert {found for expr in targets for found in re.findall(r"\$([a-z]\w*)", expr)} == variables
