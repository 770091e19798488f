"""The controller follows the load that it measures."""

import re
from pathlib import Path

import pytest

from tests.e2e.app import write_application
from tests.e2e.clients import Client, Crowd, expected
from tests.e2e.system import System

pytestmark = pytest.mark.e2e

MOST_ASKED = 5000
"""Requests after which the measured rows must be known. 200 suffice, after a second or two."""

SPARE = 50
"""Further requests, so that the counts, which decay, suffice until the next plan on a busy machine, too."""


def test_a_load_above_the_plan_triggers_a_new_plan_and_loses_no_request(system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app", square_ms=100)
    before = system.deploy(app, "--gpus", "2xcpu", "--demand", 2)
    capacity_rps = before["graphs"]["words"]["capacity_rps"]
    last = system.last_event()
    with Crowd(system, clients=8, pause_s=0.1) as crowd:
        last = system.wait_event("demand: words receives", after=last)
        last = system.wait_event("ready: the new generation serves", after=last)
        crowd.wait_answers(50)
    crowd.assert_none_failed()
    after = system.status()
    assert after["graphs"]["words"]["capacity_rps"] > capacity_rps
    assert after["graphs"]["words"]["base_rps"] == 2
    assert len(after["workers"]) > len(before["workers"])
    assert any("measured load: words receives" in event for event in system.events())


def test_a_plan_uses_the_measured_number_of_rows(system: System, tmp_path: Path) -> None:
    """Requests have 12 rows, but the graph estimates 4."""
    app = write_application(tmp_path / "app", square_ms=2)
    system.deploy(app, "--gpus", "2xcpu", "--demand", 20)
    with Client(system, "grpc") as client:
        numbers = list(range(12))
        for _ in range(MOST_ASKED):
            assert client.squares(numbers) == expected(numbers)
            if rows := system.status()["graphs"]["words"]["rows"]:
                break
        for _ in range(SPARE):
            client.squares(numbers)
    assert len(rows) == 1
    assert re.fullmatch(r"words\.split\.plain yields 1[12](\.\d)? ROWS, not 4", rows[0])
    assert f"measured: {rows[0].partition(' yields ')[0]}" in system.run("status").out
    last = system.last_event()
    after = system.deploy(app, "--gpus", "2xcpu", "--demand", 21)
    replaced = "rows: measured values replace estimates in the next plan: words.split.plain yields"
    assert any(replaced in event for event in system.events(after=last))
    tasks = after["plan"]["graphs"]["words"]["tasks"]
    assert tasks["square"]["rate_rps"] == pytest.approx(12 * tasks["split"]["rate_rps"], rel=0.1)
