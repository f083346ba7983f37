"""Prometheus' rules and configuration, Grafana's dashboard and the docs fit what a hub answers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from lab.harness.hub import Hub
from lab.harness.store import ROOT
from tests.test_docs import table_rows

PROMETHEUS = ROOT / "deploy/prometheus"
RULES = PROMETHEUS / "agentcom.rules.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/agentcom.json").read_text())
OPERATIONS = (ROOT / "docs/operations.md").read_text()
NAME = re.compile(r"\b(?:agentcom|process)_\w+")
SELECTOR = re.compile(r"\b(?P<name>(?:agentcom|process)_\w+)\{(?P<matchers>[^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
OF_PROMETHEUS = {"job", "instance"}  # labels that it adds


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules()), *panels]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        return httpx.get(f"{hub.url}/metrics").text


@pytest.fixture(scope="module")
def families(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))


@pytest.fixture(scope="module")
def labels(families: list[Metric]) -> dict[str, dict[str, set[str]]]:
    """The values of each label, by the name of the series."""
    found: dict[str, dict[str, set[str]]] = {}
    for family in families:
        for sample in family.samples:
            values = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    return found


def test_rules_and_dashboard_name_series_that_there_are(labels: dict[str, dict[str, set[str]]]):
    named = {name for expression in expressions() for name in NAME.findall(expression)}
    assert named - labels.keys() == set()
    assert len(named) > 15


def test_they_select_labels_that_there_are(labels: dict[str, dict[str, set[str]]]):
    selected = 0
    for expression in expressions():
        for selector in SELECTOR.finditer(expression):
            for label, sign, wanted in MATCHER.findall(selector["matchers"]):
                if label not in OF_PROMETHEUS:
                    values = wanted.split("|") if sign == "=~" else [wanted]
                    assert set(values) <= labels[selector["name"]][label], expression
                    selected += 1
    assert selected >= 10


def test_they_group_by_labels_that_there_are(labels: dict[str, dict[str, set[str]]]):
    known = {label for values in labels.values() for label in values} | OF_PROMETHEUS
    for expression in expressions():
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            assert {label.strip() for label in grouped.split(",")} <= known, expression


def test_every_metric_is_in_the_docs_with_its_labels(families: list[Metric]):
    documented = {}
    for row in table_rows(OPERATIONS, "Metrics"):
        for name in re.findall(r"`(\w+)`", row[0]):
            documented[name] = set(re.findall(r"`(\w+)`", row[1]))
    served = {}
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        served[name] = {label for s in family.samples for label in s.labels} - {"le"}
    assert documented == {n: found for n, found in served.items() if n.startswith("agentcom_")}
    assert any(name.startswith("process_") for name in served)


def test_every_family_says_what_it_is(families: list[Metric]):
    for family in families:
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name


def test_the_dashboard_has_no_two_panels_in_one_place():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


# --- As Prometheus' own tool sees it


def promtool(*arguments: str | Path, given: str = "") -> str:
    """What it says. `given`: on its standard input."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not here; Debian has it in the package prometheus")
    done = subprocess.run([program, *arguments], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_configuration_is_valid():
    assert "1 rule files found" in promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_the_alerts_are_raised_when_they_should_be():
    promtool("test", "rules", ROOT / "tests/deploy/alerts.yml")


def test_every_alert_is_held_against_examples():
    tests = yaml.safe_load((ROOT / "tests/deploy/alerts.yml").read_text())["tests"]
    raised = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if "exp_alerts" in case
    }
    assert raised == {rule["alert"] for rule in rules()}


def test_the_answer_is_as_prometheus_wants_it(text: str):
    """What promtool calls bad style would be a fault too."""
    assert promtool("check", "metrics", given=text) == ""
