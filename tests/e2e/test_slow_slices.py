"""A model that is slower than its profile is noticed, reported, and planned with."""

from pathlib import Path

import pytest

from tests.e2e.app import SQUARE, write_application
from tests.e2e.clients import Crowd
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


def test_a_model_slower_than_its_profile_is_reported_and_planned_with(system: System, tmp_path: Path) -> None:
    slow = SQUARE.replace("time.sleep(self.sleep_s)", "time.sleep(6 * self.sleep_s)")
    app = write_application(tmp_path / "app", square=slow, square_ms=4)
    before = system.deploy(app, "--gpus", "2xcpu", "--demand", 20)
    last = system.last_event()
    with Crowd(system, clients=8, pause_s=0.1) as crowd:
        system.wait_event("slow: words.square.slow on ", after=last)
        last = system.wait_event("(slices are slower than profiled)", after=last)
        system.wait_event("ready: ", after=last)
    crowd.assert_none_failed()
    after = system.status()["plan"]["graphs"]["words"]
    planned = before["plan"]["graphs"]["words"]
    assert after["capacity_rps"] < 0.5 * planned["capacity_rps"]
    assert after["demand_rps"] == planned["demand_rps"]
