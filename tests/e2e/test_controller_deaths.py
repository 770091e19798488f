"""Controllers that die, by kill -9, while their deployment serves or changes."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.compiler.store import write_route
from tests.e2e.app import gated, write_application
from tests.e2e.clients import Client, Crowd, expected
from tests.e2e.system import System
from tests.waiting import WAIT_LIMIT_S, eventually

pytestmark = pytest.mark.e2e


def server_pids(status: dict[str, object]) -> dict[str, int]:
    """Process id of the gateway and of each worker, by name."""
    workers = status["workers"]
    gateway = status["gateway"]
    assert isinstance(workers, list) and isinstance(gateway, dict)
    return {"gateway": gateway["pid"], **{worker["name"]: worker["pid"] for worker in workers}}


@pytest.fixture(scope="module")
def deployed(shared: System, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Deploys an application to `shared` and returns the status. Changes nothing if the application serves there."""
    app = tmp_path_factory.mktemp("app")

    def deploy(accuracy: float = 0.95) -> dict[str, Any]:
        return shared.deploy(write_application(app, accuracy=accuracy), "--gpus", "2xcpu", "--demand", 60)

    return deploy


def test_a_signal_ends_the_controller_and_leaves_the_servers(
    shared: System, deployed: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    before = deployed()
    with Crowd(shared) as crowd:
        os.kill(shared.supervisor_pid(), signal.SIGTERM)
        shared.wait_controller_gone()
        crowd.wait_answers(30)
        # A deploy that fails leaves the servers, with a controller again.
        app = write_application(tmp_path / "app")
        failed = shared.run("deploy", app, "--gpus", "2xcpu", "--demand", 1e6, *shared.ports, "--detach")
        assert failed.code == 3
        assert shared.status()["state"] == "ready"
        assert server_pids(deployed()) == server_pids(before)
    crowd.assert_none_failed()


def test_the_next_deploy_goes_on_with_servers_whose_controller_is_gone(
    shared: System, deployed: Callable[..., dict[str, Any]]
) -> None:
    before = deployed()
    dead = shared.worker_of("square")
    with Crowd(shared) as crowd:
        shared.kill_controller()
        status = shared.run("status")
        assert status.code == 4
        assert f"no controller is running here, but {len(before['workers']) + 1} servers are" in status.err
        os.kill(dead["pid"], signal.SIGKILL)
        crowd.wait_answers(30)
        last = shared.last_event()
        deployed()
        shared.wait_event(f"{dead['name']} serves again", after=last)
        after = server_pids(shared.status())
    crowd.assert_none_failed()
    assert {name for name, pid in server_pids(before).items() if after[name] != pid} == {dead["name"]}


def test_a_killed_controller_costs_no_request_and_is_started_again(
    shared: System, deployed: Callable[..., dict[str, Any]]
) -> None:
    before = deployed()
    last = shared.last_event()
    with Crowd(shared) as crowd:
        os.kill(shared.controller_pid(), signal.SIGKILL)
        shared.wait_started()
        last = shared.wait_event("adopt: the controller was restarted", after=last)
        crowd.wait_answers(30)
        after = shared.status()
        assert server_pids(after) == server_pids(before)
        assert [w["uuid"] for w in after["workers"]] == [w["uuid"] for w in before["workers"]]
        # The controller can watch, change and end the servers that it adopted.
        worker = shared.worker_of("square")
        os.kill(worker["pid"], signal.SIGKILL)
        last = shared.wait_event(f"worker {worker['name']} ended unexpectedly (unknown status)", after=last)
        shared.wait_event(f"{worker['name']} serves again", after=last)
        # The controller writes a lost journal again, so that it still knows its MIG instances.
        shared.lose_journal()
        updated = deployed(accuracy=0.85)
        assert updated["generation"] > before["generation"]
    crowd.assert_none_failed()


def test_a_controller_that_hangs_is_replaced(shared: System, deployed: Callable[..., dict[str, Any]]) -> None:
    before = deployed()
    last = shared.last_event()
    hung = shared.controller_pid()
    with Crowd(shared) as crowd:
        os.kill(hung, signal.SIGSTOP)
        shared.wait_ended(hung)
        shared.wait_started()
        shared.wait_event("adopt: the controller was restarted", after=last)
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    assert server_pids(shared.status()) == server_pids(before)


def test_a_controller_that_was_replaced_while_it_was_stopped_ends_and_touches_nothing(
    shared: System, deployed: Callable[..., dict[str, Any]]
) -> None:
    before = deployed()
    stopped = (shared.supervisor_pid(), shared.controller_pid())
    with Crowd(shared) as crowd:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        shared.lose_locks()
        after = deployed()
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
            shared.wait_ended(pid)
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    assert "another controller has taken over" in (shared.state / "logs" / "controller.log").read_text()
    assert after["controller"]["pid"] not in stopped
    assert shared.status()["controller"] == after["controller"]
    assert server_pids(shared.status()) == server_pids(before)


def test_the_gateway_refuses_routes_of_a_controller_that_was_replaced(
    shared: System, deployed: Callable[..., dict[str, Any]]
) -> None:
    before = deployed()
    known = shared.run_dir / "epoch"
    epoch = int(known.read_text())
    last = shared.last_event()
    with Crowd(shared) as crowd:
        os.kill(shared.controller_pid(), signal.SIGKILL)
        shared.wait_started()
        last = shared.wait_event("adopt: the controller was restarted", after=last)
        eventually(lambda: int(known.read_text()) > epoch)
        # These routes of the earlier controller would take all workers out of service if the gateway accepted them.
        for route in (shared.run_dir / "routes").glob("*.json"):
            write_route(shared.run_dir, route.stem, (), epoch)
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    assert f"is refused: it is of controller epoch {epoch}" in (shared.state / "logs" / "gateway.log").read_text()
    # The next gateway gets the routes once more.
    os.kill(before["gateway"]["pid"], signal.SIGKILL)
    shared.wait_event("gateway serves again", after=last)
    with Client(shared, "grpc") as client:
        assert client.squares([4, 5]) == expected([4, 5])


def test_down_ends_servers_whose_controller_and_journal_are_gone(
    shared: System, deployed: Callable[..., dict[str, Any]]
) -> None:
    deployed(accuracy=0.85)
    shared.kill_controller()
    shared.lose_journal()
    down = shared.run("down")
    assert down.code == 0
    assert "that ran without a controller" in down.err
    assert shared.orphans() == []


def test_an_update_whose_controller_is_killed_is_carried_out_by_the_next(system: System, tmp_path: Path) -> None:
    before = system.deploy(write_application(tmp_path / "app"), "--gpus", "2xcpu", "--demand", 5)
    gate = tmp_path / "gate"
    app = write_application(tmp_path / "app", square=gated(gate))
    with Crowd(system) as crowd:
        last = system.last_event()
        deploy = system.start("deploy", app, "--gpus", "2xcpu", "--demand", 5, *system.ports, "--detach")
        last = system.wait_event("transition:", after=last)
        os.kill(system.controller_pid(), signal.SIGKILL)
        system.wait_started()
        last = system.wait_event("ready: rolled back: the previous generation still serves", after=last)
        gate.touch()
        system.wait_event("ready: the new generation serves", after=last)
        out, err = deploy.communicate(timeout=60)
        assert deploy.returncode == 0, out + err
    crowd.assert_none_failed()
    assert system.status()["generation"] > before["generation"] + 1


def test_a_first_deploy_whose_controller_is_killed_begins_anew(system: System, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    app = write_application(tmp_path / "app", square=gated(gate))
    deploy = system.start("deploy", app, "--gpus", "2xcpu", "--demand", 5, *system.ports, "--detach")
    system.wait_started()
    system.wait_event("transition:")
    os.kill(system.controller_pid(), signal.SIGKILL)
    gate.touch()
    out, err = deploy.communicate(timeout=90)
    assert deploy.returncode == 0, out + err
    with Client(system, "grpc") as client:
        assert client.squares([4, 5]) == expected([4, 5])


def test_commands_that_watch_a_deployment_say_how_it_ends(system: System, tmp_path: Path) -> None:
    asked = (write_application(tmp_path / "app"), "--gpus", "2xcpu", "--demand", 5)
    system.deploy(*asked)
    events = system.start("events", "--follow")
    last = system.last_event()
    os.kill(system.controller_pid(), signal.SIGKILL)
    system.wait_started()
    system.wait_event("adopt: the controller was restarted", after=last)
    os.kill(system.supervisor_pid(), signal.SIGTERM)
    out, err = events.communicate(timeout=WAIT_LIMIT_S)
    assert "the controller was restarted and adopted" in out
    assert "error: the controller has ended; its servers go on without it" in err
    assert events.returncode == 4
    system.deploy(*asked)
    events = system.start("events", "--follow")
    waiting = system.start("status", "--wait", "stopped")
    # The supervisor is stopped too, because it would replace the controller.
    for pid in (system.supervisor_pid(), system.controller_pid()):
        os.kill(pid, signal.SIGSTOP)
    down = system.run("down")
    assert (down.code, down.out) == (0, "the deployment is stopped\n")
    assert "the controller does not answer: it is killed, and its servers are ended without it" in down.err
    assert system.orphans() == []
    out, err = events.communicate(timeout=WAIT_LIMIT_S)
    assert out.endswith("all servers of the deployment were ended without their controller\n")
    assert (events.returncode, waiting.wait(WAIT_LIMIT_S)) == (0, 0), err
