"""Updates of a deployment under load."""

from pathlib import Path
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from tests.e2e.app import write_application
from tests.e2e.clients import Client, Crowd, expected
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


def replicas(status: dict[str, Any], task: str) -> list[str]:
    """Returns `variant slice` of each worker's model for a task."""
    return sorted(
        f"{model['variant']} {worker['slice']}"
        for worker in status["workers"]
        for model in worker["models"]
        if model["task"] == task
    )


def test_updates_under_load_lose_no_request(shared: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    gpus = ("--gpus", "2xcpu")
    status = shared.deploy(app, *gpus, "--demand", 5)
    small = replicas(status, "square")
    assert set(small) == {"slow 1g"}
    with Crowd(shared) as crowd:

        def update(*arguments: object) -> dict[str, Any]:
            crowd.wait_answers(20)
            generation = shared.status()["generation"]
            status = shared.deploy(app, *gpus, *arguments)
            assert status["generation"] > generation
            crowd.wait_answers(20)
            crowd.assert_none_failed()
            return status

        more = update("--demand", 100)
        assert len(replicas(more, "square")) > len(small)
        write_application(app, accuracy=0.85)
        lighter = update("--demand", 100)
        assert any(name.startswith("fast") for name in replicas(lighter, "square"))
        for target in ("bls", "ensemble"):
            assert update("--demand", 100, "--target", target)["graphs"]["words"]["target"] == target
        write_application(app)
        shrunk = update("--demand", 5)
        assert replicas(shrunk, "square") == small
        assert shrunk["graphs"]["words"]["target"] == "graph"
    answered = "jigsaw_generation_requests_total"
    assert shared.metric(answered, graph="words", outcome="met") > 0
    # The series of earlier generations have ended.
    assert shared.metric(answered, graph="words") == shared.metric(
        answered, graph="words", generation=str(shrunk["generation"])
    )
    assert shared.routes("tasks") == shared.routes("routes")
    assert shared.slot_files() == {(w["name"], m["name"]) for w in shrunk["workers"] for m in w["models"]}


def test_workers_stay_if_a_change_does_not_pay(shared: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    gpus = ("--gpus", "2xcpu")
    busy = shared.deploy(app, *gpus, "--demand", 100)
    workers = {(w["name"], w["pid"]) for w in busy["workers"]}
    kept = shared.deploy(app, *gpus, "--demand", 5, "--change-price", 10)
    assert {(w["name"], w["pid"]) for w in kept["workers"]} == workers
    assert len(shared.deploy(app, *gpus, "--demand", 5)["workers"]) < len(workers)


def test_a_graph_is_added_and_removed_while_another_serves(shared: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    other = write_application(tmp_path / "other", name="other")
    shared.deploy(app, "--gpus", "2xcpu", "--demand", 6)
    with Crowd(shared) as crowd, Client(shared, "grpc") as client:
        both = shared.deploy(app, other, "--gpus", "2xcpu")
        assert {name: graph["base_rps"] for name, graph in both["graphs"].items()} == {"words": 6, "other": 1}
        assert client.squares([8, 9], "other") == expected([8, 9])
        one = shared.deploy(app, "--gpus", "2xcpu")
        assert {name: graph["base_rps"] for name, graph in one["graphs"].items()} == {"words": 6}
        with pytest.raises(InferenceServerException, match="unknown model: 'other'"):
            client.squares([8, 9], "other")
        crowd.wait_answers(20)
    crowd.assert_none_failed()


def test_a_rollback_returns_to_an_earlier_plan(shared: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    before = shared.deploy(app, "--gpus", "2xcpu", "--demand", 60)
    shared.deploy(app, "--gpus", "2xcpu", "--demand", 5)
    with Crowd(shared) as crowd:
        back = shared.run("rollback", "-o", "json")
        crowd.wait_answers(10)
    crowd.assert_none_failed()
    assert back.code == 0, back.err
    assert back.json["plan"]["gpus"] == before["plan"]["gpus"]
    assert back.json["graphs"]["words"]["base_rps"] == 60
    history = shared.run("history", "-o", "json").json["generations"]
    assert [g["outcome"] for g in history[-3:]] == ["replaced", "replaced", "serves"]
    assert history[-1]["reason"] == f"rollback to generation {before['generation']}"


def test_a_repeated_deploy_changes_nothing(shared: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    before = shared.deploy(app, "--gpus", "2xcpu", "--demand", 5)
    after = shared.deploy(app, "--gpus", "2xcpu", "--demand", 5)
    assert after["generation"] == before["generation"]
    assert [(w["name"], w["pid"]) for w in after["workers"]] == [(w["name"], w["pid"]) for w in before["workers"]]


def test_a_full_gpu_changes_its_layout_under_load_without_losing_a_request(system: System, tmp_path: Path) -> None:
    """All seven slices are in use, so workers must make room before new ones can start."""
    slices = dict.fromkeys(("split", "square", "total"), ("1g",))
    app = write_application(tmp_path / "app", slices=slices)
    gpus = ("--gpus", "1xcpu")
    full = system.deploy(app, *gpus, "--demand", 200)
    assert replicas(full, "square") == ["slow 1g"] * 5
    with Crowd(system) as crowd:
        write_application(app, slices={**slices, "square": ("2g", "3g")})
        cut = system.deploy(app, *gpus, "--demand", 150)
        crowd.wait_answers(20)
    crowd.assert_none_failed()
    assert {name.split()[1] for name in replicas(cut, "square")} <= {"2g", "3g"}
    assert any("remove workers that leave from the routes" in event for event in system.events())
