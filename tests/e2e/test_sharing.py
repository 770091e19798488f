"""Applications that share a MIG instance and take turns through Triton's rate limiter."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.app import write_application
from tests.e2e.clients import Client, Crowd, expected
from tests.e2e.system import System

pytestmark = pytest.mark.e2e

TASKS = {(graph, task) for graph in ("words", "other") for task in ("split", "square", "total")}


def slices(status: dict[str, Any]) -> list[set[tuple[str, str]]]:
    """Returns the (graph, task) pairs in each slice."""
    return [{(model["graph"], model["task"]) for model in worker["models"]} for worker in status["workers"]]


def test_no_request_is_lost_when_two_applications_share_a_slice_or_separate(system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app", square_ms=4)
    other = write_application(tmp_path / "other", name="other", square_ms=4)
    asked = (app, other, "--gpus", "1xcpu", "--demand", "words=3,other=3")
    together = system.deploy(*asked, "--share")
    assert slices(together) == [TASKS]
    with Client(system, "grpc") as client:
        assert client.squares([2, 3, 5]) == expected([2, 3, 5])
        assert client.squares([7, 11], "other") == expected([7, 11])
    with (
        Crowd(system, 2, pause_s=0.8) as one,
        Crowd(system, 2, pause_s=0.8, model="other") as two,
    ):
        apart = system.deploy(*asked)
        assert sorted(map(len, slices(apart))) == [1] * len(TASKS)
        for crowd in (one, two):
            crowd.wait_answers(6)
        again = system.deploy(*asked, "--share")
        assert slices(again) == [TASKS]
        for crowd in (one, two):
            crowd.wait_answers(6)
    one.assert_none_failed()
    two.assert_none_failed()
