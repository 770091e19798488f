"""The controller follows the load that it measures."""

from pathlib import Path

import pytest

from tests.e2e.app import write_application
from tests.e2e.clients import Crowd
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


def test_load_above_the_plan_is_planned_for_and_loses_no_request(system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app", square_ms=100)
    before = system.deploy(app, "--gpus", "2xcpu", "--demand", 2)
    capacity_rps = before["graphs"]["words"]["capacity_rps"]
    last = system.last_event()
    with Crowd(system, clients=8, pause_s=0.1) as crowd:
        last = system.wait_event("demand: words at", after=last)
        last = system.wait_event("ready: the new generation serves", after=last)
        crowd.wait_answers(50)
    crowd.assert_none_failed()
    after = system.status()
    assert after["graphs"]["words"]["capacity_rps"] > capacity_rps
    assert after["graphs"]["words"]["base_rps"] == 2
    assert len(after["workers"]) > len(before["workers"])
    assert any("measured load: words at" in event for event in system.events())
