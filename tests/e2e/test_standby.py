"""A lighter variant in the same slice takes over a burst, and gives back after it."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.app import write_application
from tests.e2e.clients import Crowd
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


def square_models(status: dict[str, Any]) -> set[tuple[str, bool]]:
    """Returns the variant of each model that squares numbers, and if it stands by."""
    models = [model for worker in status["workers"] for model in worker["models"] if model["task"] == "square"]
    return {(model["variant"], model["standby"]) for model in models}


def test_a_burst_is_answered_by_the_standby_variant_until_it_ends(system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app", accuracy=0.85, square_ms=100)
    gpus = ("--gpus", "2xcpu", "--demand", 2)
    before = system.deploy(app, *gpus)
    graph = before["graphs"]["words"]
    assert graph["standby"]["capacity_rps"] > graph["capacity_rps"]
    assert graph["standby"]["accuracy"] == pytest.approx(0.9)
    assert square_models(before) == {("slow", False), ("fast", True)}
    # The burst must not cause another plan, whose variants would be other ones.
    assert system.run("pause").code == 0
    last = system.last_event()
    with Crowd(system, clients=8, pause_s=0.05) as crowd:
        last = system.wait_event("standby variants take over", after=last)
        crowd.wait_answers(50)
        status = system.status()
        assert status["graphs"]["words"]["standby"]["serving"]
        assert square_models(status) == {("slow", True), ("fast", False)}
        assert "standby variants serve words" in system.run("status").out
    crowd.assert_none_failed()
    system.wait_event("they serve again", after=last)
    after = system.status()
    assert after["generation"] == before["generation"]
    assert square_models(after) == {("slow", False), ("fast", True)}
    assert system.run("resume").code == 0
    switched_off = system.deploy(app, *gpus, "--standby", "off")
    assert switched_off["graphs"]["words"]["standby"] is None
    assert square_models(switched_off) == {("slow", False)}
