"""A model that is slower than its profile is noticed, reported, and planned with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.api.drift import live_drifts
from jigsaw_triton.api.observed import ObservedDeployment
from jigsaw_triton.api.profile_files import load_profiles
from jigsaw_triton.errors import StateError
from tests.e2e.app import SQUARE, write_application
from tests.e2e.clients import Client, Crowd
from tests.e2e.system import System
from tests.e2e.test_pages import follow

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
        # Later plans follow what is measured meanwhile.
        after = system.status()["plan"]["graphs"]["words"]
        while not judged(system, app):
            crowd.wait_answers(20)
    crowd.assert_none_failed()
    planned = before["plan"]["graphs"]["words"]
    assert per_slice(after) < 0.5 * per_slice(planned)
    assert after["demand_rps"] == planned["demand_rps"]
    with Client(system, "grpc") as client:
        client.ask("words", {"NUMBERS": np.array([[2, 3]], np.int64)}, ("TOTAL",), request_id="of a user")
    printed = follow("how-to/slow-workers.md", tmp_path, system)
    assert "of a user" in printed
    assert "slower" in printed


def per_slice(plan: dict[str, Any]) -> float:
    """Returns the requests a second that a plan expects of each compute slice of the slow task.

    The plan has more of them for the load of a busy machine, and then carries as much as before.
    """
    segments = plan["tasks"]["square"]["segments"]
    slices: int = sum(int(segment["slice"][0]) * segment["count"] for segment in segments)
    return float(plan["capacity_rps"]) / slices


def judged(system: System, app: Path) -> bool:
    """True if a configuration has answered so many batches that `profiles check --live` calls it slower."""
    try:
        drifts = live_drifts("words", load_profiles(app), ObservedDeployment(system.state))
    except StateError:
        return False
    return any(drift.verdict == "slower" for drift in drifts)
