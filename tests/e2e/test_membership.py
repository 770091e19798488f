"""Graphs that join a running deployment and leave it one by one, while clients use the others."""

import os
import signal
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from tests.e2e.app import write_application
from tests.e2e.clients import Client, Crowd, expected
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


def names(system: System) -> set[str]:
    return set(system.status()["graphs"])


def test_graphs_join_and_leave_one_by_one_without_a_lost_request(system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    other = write_application(tmp_path / "other", name="other")
    nothing = system.run("deploy", "--add", app)
    assert (nothing.code, "nothing is deployed here" in nothing.err) == (4, True)
    before = system.deploy(app, "--gpus", "2xcpu", "--demand", 6, "--period", 7)
    # Later changes of these files are not deployed.
    (app / "graph.yaml").write_text("kind: Mistake")
    (app / "profiles.csv").unlink()
    with Crowd(system) as crowd:
        added = system.run("deploy", "--add", other, "--demand", 4, "-o", "json")
        assert added.code == 0, added.err
        rates = {name: graph["base_rps"] for name, graph in added.json["graphs"].items()}
        assert rates == {"words": 6, "other": 4}
        assert {w["pid"] for w in before["workers"]} <= {w["pid"] for w in added.json["workers"]}
        crowd.wait_answers(20)
        last = system.last_event()
        os.kill(system.controller_pid(), signal.SIGKILL)
        system.wait_started()
        system.wait_event("the controller was restarted and adopted", after=last)
        assert names(system) == {"words", "other"}
        with Crowd(system, clients=2, model="other") as others:
            third = write_application(tmp_path / "third", name="third")
            assert system.run("deploy", "--add", third).code == 0
            removed = system.run("down", "words", "third", "-o", "json")
            assert removed.code == 0, removed.err
            others.wait_answers(20)
    others.assert_none_failed()
    assert [failure for failure in crowd.failures if "unknown model: 'words'" not in failure] == []
    with Client(system, "grpc") as client, pytest.raises(InferenceServerException, match="unknown model: 'words'"):
        client.squares([1, 2])
    assert removed.json["graphs"].keys() == {"other"}
    history = [(g["by"], g["reason"]) for g in system.run("history", "-o", "json").json["generations"]]
    assert history == [
        ("user", "requested by the user"),
        ("user", "other added by the user"),
        ("user", "third added by the user"),
        ("user", "third, words removed by the user"),
    ]
    assert system.run("rollback").code == 0
    assert names(system) == {"words", "other", "third"}
    with Client(system, "http") as client:
        assert client.squares([3, 4]) == expected([3, 4])
    assert system.run("down", "words", "other", "third").code == 0
    system.wait_gone()
    assert not (system.state / "contents").exists()


def test_a_graph_joins_others_whose_load_is_far_above_their_demand(system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app", square_ms=100)
    system.deploy(app, "--gpus", "2xcpu", "--demand", 2, "--standby", "off")
    with Crowd(system) as crowd:
        last = system.wait_event("demand: words receives")
        system.wait_event("ready: the new generation serves", after=last)
        # Neither a rise of the load nor a review may change the plan meanwhile.
        assert system.run("pause").code == 0
        assert system.run("status", "--wait", "ready").code == 0
        before = system.status()["graphs"]["words"]
        assert before["demand_rps"] > 2 * before["base_rps"]
        crowd.wait_answers(20)
        other = write_application(tmp_path / "other", name="other")
        added = system.run("deploy", "--add", other, "-o", "json")
        assert added.code == 0, added.err
        crowd.wait_answers(20)
    crowd.assert_none_failed()
    after = added.json["graphs"]["words"]
    assert (after["base_rps"], after["demand_rps"]) == (2, before["demand_rps"])
    assert after["capacity_rps"] >= before["demand_rps"]
