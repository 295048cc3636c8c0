"""What the files of the deployment say, for the tests: services, rules, panels, and the metrics that they name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULE_FILES = sorted((DEPLOY / "prometheus/rules").glob("*.yml"))
RULE_TEST_FILES = sorted((DEPLOY / "prometheus/tests").glob("*.yml"))
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))

# Prometheus writes these itself.
OF_PROMETHEUS = {"up", "ALERTS"}
# Read while the tests are collected: they run in an environment without any of our variables.
REQUIRE_TOOLS = bool(os.environ.get("STREAM_GRU_REQUIRE_TOOLS"))

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}


def tool(name: str, *args: str | Path) -> str:
    """Where `name` is; without it the test is skipped, or fails when tools are required."""
    if (path := shutil.which(name)) is None:
        left_out = f"{name} is not installed: left out `{' '.join(map(str, (name, *args[:2])))}` of the deployment"
        if REQUIRE_TOOLS:
            pytest.fail(left_out)
        pytest.skip(left_out)
    return path


def run_tool(name: str, *args: str | Path) -> str:
    """Run `name` and return what it says; its failure fails the test, its absence too when tools are required."""
    path = tool(name, *args)
    done = subprocess.run([path, *map(str, args)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{name} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def yaml_file(path: str | Path) -> Any:
    """The document in a file below the top level."""
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


@cache
def compose() -> Any:
    """docker-compose.yml with the defaults of its variables put in."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def services() -> dict[str, Any]:
    """The services of docker-compose.yml by name."""
    found: dict[str, Any] = compose()["services"]
    return found


def rules(kind: str) -> list[dict[str, Any]]:
    """Every rule of a kind: `alert` or `record`."""
    groups = [group for file in RULE_FILES for group in yaml_file(file)["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def rule_tests() -> list[dict[str, Any]]:
    """Every expression of the rules' unit tests, with the time and the samples that are expected."""
    tests = [test for file in RULE_TEST_FILES for test in yaml_file(file)["tests"]]
    return [check for test in tests for check in test["promql_expr_test"]]


def dashboards() -> dict[str, Any]:
    """Every dashboard by the name of its file."""
    return {file.name: json.loads(file.read_text("utf-8")) for file in DASHBOARDS}


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression of a rule or a dashboard, with where it stands."""
    for kind in ("record", "alert"):
        for rule in rules(kind):
            yield rule[kind], rule["expr"]
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield f"{name}, panel {panel['title']}", target["expr"]
        for annotation in dashboard["annotations"]["list"]:
            yield f"{name}, annotation {annotation['name']}", annotation["expr"]
        for variable in dashboard["templating"]["list"]:
            query = variable["query"]["query"]
            label_values = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
            assert label_values, f"{name}, variable {variable['name']}: {query} is no label_values(series, label)"
            series, label = label_values.groups()
            yield f"{name}, variable {variable['name']}", f"count by ({label}) ({series})"


def parse(expression: str) -> promql_parser.Expr:
    """The syntax tree; Grafana's intervals are taken for five minutes, its other variables for text."""
    return promql_parser.parse(re.sub(r"\$__\w*interval", "5m", expression))


def names(expression: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels that an expression names."""
    metrics: set[str] = set()
    labels: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            visit(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            assert node.name, f"a selector without a metric: {expression}"
            metrics.add(node.name)
            labels.update(matcher.name for matcher in node.matchers.matchers)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            labels.update(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier:
            labels.update(node.modifier.matching.labels if node.modifier.matching else [])
            labels.update(node.modifier.group_labels or [])

    promql_parser.walk(parse(expression), visit)
    return metrics, labels


def metric_names_used() -> set[str]:
    """Every metric of a worker that a rule, a panel, an annotation or a variable names.

    What recording rules define and what Prometheus writes itself is left out.
    """
    used = set[str]().union(*(names(expression)[0] for _, expression in expressions()))
    return used - {rule["record"] for rule in rules("record")} - OF_PROMETHEUS


def metric_names_exposed(text: str) -> set[str]:
    """Every series name that the text of a /metrics page promises, also those that have no sample yet."""
    return {
        family.name + suffix
        for family in text_string_to_metric_families(text)
        for suffix in _SUFFIXES.get(family.type, ("",))
    }


def labels_exposed(text: str) -> set[str]:
    """Every label of a sample on a /metrics page."""
    return {label for f in text_string_to_metric_families(text) for sample in f.samples for label in sample.labels}


def project() -> Any:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
