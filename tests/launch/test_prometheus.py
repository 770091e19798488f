"""Prometheus' configuration, rules and alerts, and Grafana's dashboard: their queries use metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs import needed

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "launch" / "prometheus"
GRAFANA = ROOT / "launch" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "jigsaw-triton.json"
METRICS = (ROOT / "docs" / "reference" / "metrics.md").read_text()
GUIDE = (ROOT / "docs" / "how-to" / "monitoring.md").read_text()
UNIT_TESTS = Path(__file__).with_name("alerts.test.yml")

INSTALL = "Debian, Ubuntu: apt-get install prometheus promtool"
NAME = re.compile(r"\b(?:\w+:)?(?:jigsaw|nv)_\w+(?::\w+)?")


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / f"{name}.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


RECORDS = {rule["record"]: rule["expr"] for rule in rules("recording")}
ALERTS = {rule["alert"]: rule["expr"] for rule in rules("alerting")}


def panels() -> Iterator[tuple[str, str]]:
    """(title, query) of each target of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def promtool(*arguments: object) -> str:
    program = needed("promtool", INSTALL)
    ran = subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_configuration_and_its_rules_are_valid() -> None:
    said = promtool("check", "config", "--lint-fatal", PROMETHEUS / "prometheus.yml")
    assert f"SUCCESS: {len(RECORDS)} rules found" in said
    assert f"SUCCESS: {len(ALERTS)} rules found" in said


@pytest.mark.slow
def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", UNIT_TESTS)


@pytest.mark.slow
def test_a_wrong_threshold_fails_the_tests_of_the_alerts(tmp_path: Path) -> None:
    shutil.copytree(PROMETHEUS, tmp_path / "launch" / "prometheus")
    alerting = tmp_path / "launch" / "prometheus" / "alerting.rules.yml"
    alerting.write_text(alerting.read_text().replace("[15m]) >= 3", "[15m]) >= 30"))
    cases = tmp_path / "tests" / "launch" / UNIT_TESTS.name
    cases.parent.mkdir(parents=True)
    shutil.copy(UNIT_TESTS, cases)
    with pytest.raises(AssertionError, match="JigsawWorkerFlapping"):
        promtool("test", "rules", cases)


def test_every_alert_has_a_test_and_a_row_in_the_guide() -> None:
    tested = UNIT_TESTS.read_text()
    assert [name for name in ALERTS if not re.search(rf"\b{name}\b", tested)] == []
    assert re.findall(r"^\| `(Jigsaw\w+)`", GUIDE, re.MULTILINE) == list(ALERTS)


def test_the_example_for_alertmanager_names_alerts_and_receivers_that_exist() -> None:
    found = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
    receivers = {receiver["name"] for receiver in found["receivers"]}
    assert {found["route"]["receiver"], *(route["receiver"] for route in found["route"]["routes"])} == receivers
    inhibited = {name for rule in found["inhibit_rules"] for name in re.findall(r"Jigsaw\w+", str(rule))}
    assert inhibited and inhibited <= ALERTS.keys()


def test_alertmanager_accepts_its_example() -> None:
    amtool = needed("amtool", "Debian, Ubuntu: apt-get install prometheus-alertmanager")
    command = [str(amtool), "check-config", str(PROMETHEUS / "alertmanager.yml")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(("where", "query"), [*RECORDS.items(), *ALERTS.items(), *panels()])
def test_a_query_uses_metrics_that_exist(where: str, query: str) -> None:
    used = set(NAME.findall(re.sub(r"\b(?:by|on|group_left) ?\([^)]*\)|job=\S+", "", query)))
    assert used or "up{" in query, where
    for name in used - RECORDS.keys():
        assert f"`{re.sub('_(?:bucket|sum|count)$', '', name)}`" in METRICS, f"{where}: {name}"


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    found = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in found)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(0 <= x < 24 for x, _ in cells)


def test_grafana_is_provisioned_with_the_dashboard() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/jigsaw-triton.yml").read_text())["providers"]
    assert provider["options"]["path"] in GUIDE
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
